"""Runs of the real command, started ahead of need and shared by all tests of a session."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from distrib.runs.events import read_events
from distrib.runs.layout import RunLayout

JOBS = Path(__file__).with_name("exact_jobs.py")
TIMES = frozenset({"time", "step_seconds", "data_seconds", "samples_per_second", "eval_seconds"})
TIMEOUT_SECONDS = 100


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        exit_code: Of the command.
        errors: What it printed on stderr.
        output: The JSON object that it printed on stdout.
        folder: The folder of the job: job.yaml, the job's module and what the job recorded.
    """

    exit_code: int
    errors: str
    output: dict
    folder: Path

    @property
    def layout(self):
        """The paths of the run."""
        return RunLayout(self.folder / "runs" / "run")

    def events(self, *kinds):
        """The events of some kinds, or all."""
        events = read_events(self.layout.metrics_file)
        return [event for event in events if event["event"] in kinds] if kinds else events

    def timeless_events(self):
        """All events without what a clock said."""
        return [{name: value for name, value in event.items() if name not in TIMES} for event in self.events()]

    def weights(self):
        """The final weights."""
        assert self.exit_code == 0, self.errors
        return load_file(self.layout.weights_file)

    def record(self, rank=0):
        """What the recording optimizer of a rank has kept."""
        assert self.exit_code == 0, self.errors
        return torch.load(self.folder / f"rank-{rank}.pt")

    def samples(self, rank):
        """The sample record of a rank."""
        return [json.loads(line) for line in self.layout.samples_file(rank).read_text().splitlines()]


class Runs:
    """Runs by name, each started once; as many at a time as there are CPUs to share.

    Args:
        folder: Where everything goes.
        specs: For each name, the function that gives the job spec from its folder.
    """

    def __init__(self, folder, specs):
        self._folder = folder
        self._specs = specs
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._futures: dict[str, Future] = {}
        self._processes: list[subprocess.Popen] = []

    def start(self, name):
        """Starts a run, if it is not started yet, as soon as those before it are over."""
        if name not in self._futures:
            self._futures[name] = self._pool.submit(self._run, name)
        return self._futures[name]

    def __getitem__(self, name):
        """The run of that name, once it is over."""
        return self.start(name).result()

    def close(self):
        """Ends whatever is still running."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            _end(process)
        self._pool.shutdown()

    def _run(self, name):
        folder = self._folder / name
        folder.mkdir()
        shutil.copy(JOBS, folder)
        (folder / "job.yaml").write_text(
            json.dumps({"name": name, "checkpoint": {"every": "never"}, **self._specs[name](folder)})
        )
        command = [sys.executable, "-m", "distrib", "run", "job.yaml", "--json", "--record-samples"]
        command += ["--device", "cpu", "--runs-dir", "runs", "--run-id", "run"]
        environment = {key: value for key, value in os.environ.items() if key != "DISTRIB_RUNS_DIR"}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True
        )
        self._processes.append(process)
        try:
            output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            _end(process)
        return Finished(process.returncode, errors, json.loads(output) if output else {}, folder)


def _end(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
