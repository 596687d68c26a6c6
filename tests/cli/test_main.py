"""The command as a whole: help, speed, errors and exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
from importlib import metadata

import pytest

from distrib.cli.main import _run_and_report
from tests.support.interrupted import interrupted_at_import


@pytest.mark.parametrize("verb", ["", "run", "plan", "list", "schema"])
def test_help(distrib, verb):
    result = distrib(*verb.split(), "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: distrib")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_help_of_run_lists_the_exit_codes(distrib):
    lines = [line.strip() for line in distrib("run", "--help").stdout.splitlines()]
    assert "130  stopped; the command that continues is printed" in lines
    assert "2    the job or the command line is wrong" in lines


def test_version(distrib):
    result = distrib("--version")
    assert (result.returncode, result.stdout) == (0, f"distrib {metadata.version('distrib')}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "run train.py --workers 2 --epochs 3",
            "; options of a script come last, after --: distrib run train.py … -- -",
        ),
        ("run -m pk.train --lr 3", "; options of a script come last, after --: distrib run -m pk.train … -- --lr …"),
        ("plan job.yaml --batch-size 3", "; set the job's field: --set data.batch_size=…"),
        ("status one --foo", "No such option: --foo\n"),
        ("run train.py --set", "Option '--set' requires an argument.\n"),
    ],
)
def test_an_unknown_option_names_where_it_belongs(capsys, arguments, message):
    assert _run_and_report(arguments.split()) == 2
    assert message in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "import sys, distrib.cli.main as main; code = main._run_and_report(['--help']); \
print(code, [name for name in ('torch', 'ray', 'distrib.job.spec') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: distrib"),
        (["rnu"], "Did you mean 'run'?"),
        (["run"], "name a job's YAML file or a Python script"),
        (["run", "job.yaml", "--wrokers", "2"], "--workers"),
        (["run", "job.yaml", "--on", "mars"], "--on"),
        (["run", "job.yaml", "more"], "job.yaml is no script, so it takes no arguments"),
        (["run", "missing.yaml"], "distrib: missing.yaml: "),
        (["plan", "missing.yaml"], "distrib: missing.yaml: "),
        (["run", "job.yaml", "--workers", "0"], "distrib: --workers: '0' is not a number of workers"),
        (["run", "job.yaml", "--workers", "2..x"], "distrib: --workers: "),
        (["run", "job.yaml", "--workers", "3..2"], "3"),
        (["run", "job.yaml", "--device", "abacus"], "resources.device"),
        (["run", "job.yaml", "--run-id", "../x"], "distrib: --run-id: '../x' cannot name a run"),
        (["run", "job.yaml", "--run-id", "x\n"], "distrib: --run-id: "),
        (["run", "job.yaml", "--set", "train.stesp=3"], "train.stesp"),
    ],
)
def test_user_errors_exit_2_with_a_message_and_no_traceback(distrib, job, arguments, message):
    result = distrib(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert os.listdir(job.parent) == ["job.yaml"]


@pytest.mark.parametrize("arguments", [["run", "missing.yaml", "--json"], ["run", "--json"], ["plan", "x", "--json"]])
def test_errors_are_one_json_object_where_asked_for(distrib, arguments):
    result = distrib(*arguments)
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"], result.returncode) == ("error", 2, 2)
    assert answer["error"]
    assert result.stderr


def test_errors_are_red_on_a_terminal_unless_colours_are_unwanted(distrib):
    for unwanted, start in (("", "\x1b[31mdistrib: missing.yaml"), ("1", "distrib: missing.yaml")):
        parent, child = pty.openpty()
        distrib("run", "missing.yaml", env={"NO_COLOR": unwanted}, capture_output=False, stderr=child)
        os.close(child)
        assert os.read(parent, 1000).decode().startswith(start)
        os.close(parent)


def test_a_reader_that_goes_away_is_no_drama(distrib):
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE) as reader:
        reader.wait()
        result = distrib("schema", capture_output=False, stdout=reader.stdin, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_verbs_are_imported(tmp_path, number):
    done = interrupted_at_import("distrib", tmp_path, number)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "distrib: interrupted\n")


ENDS = """
import atexit, sys, threading, time, torch
from distrib.cli.ending import end_process

class Late:
    def __del__(self):
        print("destroyed")

late = Late()
atexit.register(print, "registered")
if "thread" in sys.argv:
    threading.Thread(target=lambda: (time.sleep(0.3), print("waited for"))).start()
print("x" * 100_000)
end_process(7)
"""


@pytest.mark.parametrize(("arguments", "last"), [([], ["registered"]), (["thread"], ["waited for", "registered"])])
def test_the_end_runs_what_is_registered_for_it_and_destroys_no_objects(arguments, last):
    command = [sys.executable, "-c", ENDS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert [line for line in done.stdout.splitlines()[1:] if line != "destroyed" or not arguments] == last


def test_ctrl_c_before_anything_has_started(tmp_path, job):
    job.write_text(job.read_text().replace("nowhere:Model", "slow:Model"))
    (tmp_path / "slow.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"
    )
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); \
import sys; from distrib.cli.main import main; main()"
    command = [sys.executable, "-c", code, "plan", str(job)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (130, "distrib: interrupted\n")
