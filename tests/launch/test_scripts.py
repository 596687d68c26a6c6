"""Scripts that torchrun runs, unchanged, under `distrib run`."""

import json
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.launch_process import REPOSITORY

pytestmark = pytest.mark.timeout(150)

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

import torch
import torch.distributed as dist


def strike(what):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise ValueError("no such label")
    if what == "exit":
        sys.exit(3)


def main():
    dist.init_process_group("gloo")
    total = torch.ones(1)
    dist.all_reduce(total)
    rank, attempt = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
             "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
    found = {"sum": total.item(), "argv": sys.argv[1:], "main": __name__, **{n: os.environ.get(n) for n in names}}
    Path(f"seen-{rank}-{attempt}.json").write_text(json.dumps(found))
    print(f"hello of {rank}")
    if rank == 1 and attempt == 0:
        strike(sys.argv[1])
    if sys.argv[1] == "wait":
        signal.signal(signal.SIGTERM, lambda *_: (Path(f"saved-{rank}").touch(), sys.exit(0)))
        Path(f"waiting-{rank}").touch()
        time.sleep(60)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(workplace):
    """Runs the script with arguments on two workers."""
    workplace.write("train.py", SCRIPT)

    def start(*arguments, options=()):
        command = [sys.executable, "-m", "distrib", "run", "train.py", "--workers", "2", "--runs-dir", workplace.runs]
        return workplace.start_command([*map(str, [*command, *options]), "--", *arguments])

    return start


def seen(workplace, rank, attempt=0):
    return json.loads((workplace.folder / f"seen-{rank}-{attempt}.json").read_text())


def test_each_rank_runs_it_as_main_with_the_environment_of_torchrun(workplace, script):
    launch = script("--lr", "0.1", options=["--run-id", "one"])
    assert launch.wait(90) == 0, launch.stdout + launch.stderr
    for rank in range(2):
        found = seen(workplace, rank)
        assert (found["sum"], found["argv"], found["main"]) == (2.0, ["--lr", "0.1"], "__main__")
        assert (found["RANK"], found["LOCAL_RANK"], found["GROUP_RANK"]) == (str(rank), str(rank), "0")
        assert (found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert Path(found["TORCH_NCCL_DEBUG_INFO_TEMP_FILE"]) == workplace.runs / "one" / "logs" / "nccl-trace-rank-"
        assert (found["TORCHELASTIC_MAX_RESTARTS"], found["TORCHELASTIC_RUN_ID"]) == ("3", "one")
        assert f"hello of {rank}" in launch.run.layout.rank_log(rank).read_text()
    assert f"[rank 0 on {socket.gethostname()}] hello of 0" in launch.stdout
    assert launch.run.status == "finished"
    launch.wait_until_gone()


def test_a_killed_rank_is_restarted(workplace, script):
    launch = script("kill", options=["--max-restarts", "1"])
    assert launch.wait(90) == 0, launch.stdout + launch.stderr
    assert seen(workplace, 1, attempt=1)["TORCHELASTIC_MAX_RESTARTS"] == "1"
    assert "rank 1 on " in launch.stdout


def test_an_exception_ends_the_run_with_the_frames_of_the_script(workplace, script):
    launch = script("raise")
    assert launch.wait(90) == 1
    error = launch.run.error
    assert (error["rank"], error["type"], error["message"]) == (1, "ValueError", "no such label")
    lines = error["traceback"].splitlines()
    assert 'train.py", line' in lines[1]
    assert "runpy" not in error["traceback"]
    assert not (workplace.folder / "seen-1-1.json").exists()


def test_an_exit_status_is_a_failure(workplace, script):
    launch = script("exit")
    assert launch.wait(90) == 1
    error = launch.run.error
    assert (error["rank"], error["traceback"]) == (1, None)
    assert re.fullmatch(r"exit status 3 \(.*train\.py:\d+\)", error["message"])


def test_a_stop_is_forwarded_and_the_script_may_save(workplace, script):
    launch = script("wait")
    launch.wait_until(lambda: all((workplace.folder / f"waiting-{rank}").exists() for rank in range(2)))
    launch.send(signal.SIGTERM)
    assert launch.wait(60) == 130, launch.stdout
    assert all((workplace.folder / f"saved-{rank}").exists() for rank in range(2))
    assert launch.run.status == "stopped"


def test_the_example_and_a_spec(workplace):
    shutil.copy(REPOSITORY / "jobs" / "ddp_script.py", workplace.folder)
    workplace.write(
        "script.yaml",
        "name: example\nscript: {file: ddp_script.py, args: [--epochs, '1', --checkpoint, saved.pt]}\n"
        "resources: {workers: 2, device: cpu}\n",
    )
    launch = workplace.start(job="script.yaml")
    assert launch.wait(90) == 0, launch.stdout + launch.stderr
    assert (workplace.folder / "saved.pt").exists()
    assert f"[rank 0 on {socket.gethostname()}] epoch 1: loss " in launch.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "missing.py: there is no such script"),
        (["job.yaml", "--", "--lr", "1"], "job.yaml is no script, so it takes no arguments; give '--lr'"),
        (["-m", "missing.module"], "there is no module missing.module"),
        (
            ["launch_jobs.py", "--extend"],
            "--extend: a script decides itself how long it trains; start another run",
        ),
        ([], "name a job's YAML file or a Python script"),
    ],
)
def test_wrong_command_lines(workplace, arguments, message):
    launch = workplace.start_command([sys.executable, "-m", "distrib", "run", *arguments])
    assert launch.wait(60) == 2
    assert launch.stderr.count("\n") == 1
    assert message in launch.stderr
    assert not Path(workplace.runs).exists()


LATE = """
import os, time
from datetime import timedelta

import torch.distributed as dist

if os.environ["RANK"] == "1":
    time.sleep(1.5)  # rank 0's script has ended by now
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
    store.set("key", "value")
    print("the store answers", store.get("key"))
"""


def test_the_store_is_served_until_the_last_script_has_ended(workplace):
    workplace.write("late.py", LATE)
    command = [sys.executable, "-m", "distrib", "run", "late.py", "--workers", "2", "--runs-dir", workplace.runs]
    launch = workplace.start_command([*map(str, command), "--max-restarts", "0"])
    assert launch.wait(90) == 0, launch.stdout + launch.stderr


@pytest.mark.ray
@pytest.mark.timeout(400)
class TestOnRay:
    """The same on a local Ray cluster, whose workers run a script in a process beside them."""

    RAY = ("--on", "ray", "--device", "cpu")

    @pytest.mark.long
    def test_a_lost_rank_restarts_all(self, workplace, script):
        launch = script("kill", options=[*self.RAY, "--max-restarts", "1"])
        assert launch.wait(150) == 0, launch.stdout + launch.stderr
        assert seen(workplace, 0, attempt=1)["sum"] == 2.0

    @pytest.mark.long
    def test_an_exception_ends_the_run_with_the_frames_of_the_script(self, workplace, script):
        launch = script("raise", options=self.RAY)
        assert launch.wait(150) == 1, launch.stdout + launch.stderr
        error = launch.run.error
        assert (error["rank"], error["type"], error["message"]) == (1, "ValueError", "no such label")
        assert 'train.py", line' in error["traceback"].splitlines()[1]

    def test_a_stop_is_forwarded_and_the_script_may_save(self, workplace, script):
        launch = script("wait", options=self.RAY)
        launch.wait_until(lambda: all((workplace.folder / f"waiting-{rank}").exists() for rank in range(2)), 150)
        launch.send(signal.SIGTERM)
        assert launch.wait(100) == 130, launch.stdout + launch.stderr
        assert all((workplace.folder / f"saved-{rank}").exists() for rank in range(2))
        assert launch.run.status == "stopped"
