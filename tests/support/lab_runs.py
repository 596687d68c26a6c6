"""Runs on the hosts of a lab: started on its head, watched from the machine, and compared with one on local ranks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from distrib.runs.events import read_events
from distrib.runs.layout import RunLayout
from distrib.runs.run import Run
from tests.support.recovery_runs import BATCH_SIZE, NUM_SAMPLES, REPOSITORY, SUPPORT

NUM_STEPS = 78  # six epochs
EVERY = 7
OURS = ("RayTrainWorker", "TrainController", "-m distrib")


def make_job(pace=None, failing=None, **resources):
    """The job; `pace` is the file that says how slowly it trains."""
    args = {} if pace is None else {"pace": str(pace), "failing": failing}
    return {
        "name": "paced",
        "model": {"target": "lab_jobs:Paced", "args": args},
        "data": {
            "train": {"target": "exact_jobs:Points", "args": {"num_samples": NUM_SAMPLES}},
            "batch_size": BATCH_SIZE,
        },
        "loss": "torch.nn:CrossEntropyLoss",
        "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.01}},
        "train": {"steps": NUM_STEPS, "log_every": 1},
        "resources": {"workers": 3, "device": "cpu", **resources},
        "checkpoint": {"every": f"{EVERY} steps"},
        "failures": {"max_restarts": 5, "hang_timeout": 60},
    }


class Project:
    """A user's folder with a job and its modules, and beside it a shared folder of runs.

    Args:
        lab: Where it is run; None: on local ranks.
        folder: Must not exist.
        pace: The file that says how slowly the job trains; by default one of its own.
        options: For the job.
    """

    def __init__(self, lab, folder, *, pace=None, **options):
        self._lab = lab
        self.code, self.runs = folder / "code", folder / "runs"
        self.code.mkdir(parents=True)
        self.runs.mkdir()
        self._pace = pace or folder / "pace"
        for module in ("exact_jobs.py", "lab_jobs.py"):
            shutil.copy(SUPPORT / module, self.code)
        self.write(**options)
        self._launches = []

    def write(self, **options):
        """Replaces the job."""
        (self.code / "job.yaml").write_text(json.dumps(make_job(self._pace, **options)))

    def pace(self, seconds):
        """Sets how long each step takes from now on."""
        temporary = self._pace.with_suffix(".new")
        temporary.write_text(str(seconds))
        temporary.replace(self._pace)

    def start(self, *arguments, run_id="run", storage=None):
        """Starts `distrib run` on the lab's head, or here."""
        command = [sys.executable, "-m", "distrib", "run", "job.yaml", "--run-id", run_id, "--record-samples"]
        command += ["--runs-dir", str(storage or self.runs), *map(str, arguments)]
        launch = Launch(self._lab, command, self.code, len(self._launches))
        self._launches.append(launch)
        return launch

    @property
    def layout(self):
        return RunLayout(self.runs / "run")

    @property
    def run(self):
        return Run(self.runs / "run")

    def events(self, *kinds):
        events = read_events(self.layout.metrics_file) if self.layout.metrics_file.exists() else []
        return [event for event in events if not kinds or event["event"] in kinds]

    def steps(self, attempt=None):
        """The steps that were trained, in the order in which they were, by one attempt or all."""
        return [event["step"] for event in self.events("train") if attempt in (None, event["attempt"])]

    def place_of(self, rank):
        """The host and the process of a rank, by the log that it writes."""
        log = str(self.layout.rank_log(rank))
        for host in self._lab.hosts:
            for pid in self._lab.processes(host):
                if log in _open_files(pid):
                    return host, pid
        raise AssertionError(f"rank {rank} runs nowhere")

    def gap_after(self, kind, *, last=False):
        """Seconds from the last step before the first event of this kind, or the last, to the first step after it."""
        events = self.events("train", kind)
        numbers = [number for number, event in enumerate(events) if event["event"] == kind]
        steps = [(number, event["time"]) for number, event in enumerate(events) if event["event"] == "train"]
        chosen = numbers[-1 if last else 0]
        before = max(time for number, time in steps if number < chosen)
        return min(time for number, time in steps if number > chosen) - before

    def close(self):
        for launch in self._launches:
            launch.end()


class Launch:
    """One process of the command on the lab's head, and what it prints."""

    def __init__(self, lab, command, folder, number):
        self._output = folder.parent / f"output-{number}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DISTRIB_", "RAY_"))}
        environment["PYTHONPATH"] = str(REPOSITORY)
        if lab is not None:
            command = lab.command("host1", command, folder)
            environment = lab.environment(environment)
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    @property
    def output(self):
        return self._output.read_text()

    def wait(self, timeout=150):
        """Waits for the end; returns the exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self.output}") from None

    def wait_until(self, condition, timeout=150.0):
        """Waits until `condition()` is true, as long as the process lives; returns its value."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert self.process.poll() is None, f"ended too early: {self.output}"
            assert time.monotonic() < deadline, f"waited in vain: {self.output}"
            time.sleep(0.02)
        return value

    def end(self):
        """Ends it whatever it does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _open_files(pid):
    """What a process has open."""
    folder, found = Path(f"/proc/{pid}/fd"), set()
    try:
        for name in os.listdir(folder):
            found.add(os.readlink(folder / name))
    except OSError:
        pass
    return found


def left_on_hosts(lab):
    """What still runs of any run, by host."""
    return {
        host: left
        for host in lab.hosts
        if (left := [text for text in lab.processes(host).values() if any(name in text for name in OURS)])
    }


def headers(lab):
    """What lets a client into the lab's Ray."""
    return {"Authorization": f"Bearer {Path(lab.token_file).read_text()}"}


def nodes(lab):
    """What Ray's head knows of the hosts by address: the newest node's state and why it is in it."""
    request = urllib.request.Request(f"{lab.address}/api/v0/nodes?detail=1&limit=100", headers=headers(lab))
    with urllib.request.urlopen(request, timeout=30) as answer:
        listed = json.load(answer)["data"]["result"]["result"]
    newest = {}
    for node in sorted(listed, key=lambda node: node["start_time_ms"]):
        newest[node["node_ip"]] = node
    return newest


def wait_for_state(lab, host, state, seconds):
    deadline = time.monotonic() + seconds
    while (node := nodes(lab).get(lab.host_address(host), {"state": None}))["state"] != state:
        assert time.monotonic() < deadline, node
        time.sleep(0.1)
    return node
