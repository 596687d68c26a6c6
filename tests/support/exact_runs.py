"""Runs of the real command, started ahead of need and shared by all tests of a session."""

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from distrib.runs.events import read_events
from distrib.runs.layout import RunLayout
from tests.support.command_server import start_interpreter
from tests.support.leaks import SHARED_PREFIX

JOBS = Path(__file__).with_name("exact_jobs.py")
FAULT_JOBS = JOBS.with_name("fault_jobs.py")
TIMES = frozenset(
    {"time", "step_seconds", "data_seconds", "samples_per_second", "eval_seconds"}
    | {"rank_step_seconds", "rank_data_seconds", "rank_compute_seconds", "rank_wait_seconds"}
)
TIMEOUT_SECONDS = 100
IN_NEW_INTERPRETERS = frozenset({"loss-2", "compiled"})
"""The runs that show what a rank imports; the others are forked from a process that has imported much already."""


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
    """Runs by name, each started once.

    Args:
        folder: Where everything goes.
        specs: For each name, the function that gives the job spec from its folder.
        server: Starts the commands.
        num_at_once: How many.
    """

    def __init__(self, folder, specs, server, num_at_once):
        self._folder = folder
        self._specs = specs
        self._server = server
        self._pool = ThreadPoolExecutor(max_workers=num_at_once, thread_name_prefix=f"{SHARED_PREFIX}runs")
        self._futures: dict[str, Future] = {}
        self._commands = []

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
        for command in self._commands:
            command.kill()
        self._pool.shutdown()

    def _run(self, name):
        folder = self._folder / name
        folder.mkdir()
        for module in (JOBS, FAULT_JOBS):
            shutil.copy(module, folder)
        (folder / "job.yaml").write_text(
            json.dumps({"name": name, "checkpoint": {"every": "never"}, **self._specs[name](folder)})
        )
        arguments = ["run", "job.yaml", "--json", "--record-samples", "--device", "cpu", "--runs-dir", "runs"]
        arguments += ["--run-id", "run"]
        environment = {key: value for key, value in os.environ.items() if key != "DISTRIB_RUNS_DIR"}
        start = start_interpreter if name in IN_NEW_INTERPRETERS else self._server.start
        command = start(arguments, folder, folder / "stdout", folder / "stderr", environment)
        self._commands.append(command)
        try:
            exit_code = command.wait(TIMEOUT_SECONDS)
        finally:
            command.kill()
        output, errors = ((folder / stream).read_text() for stream in ("stdout", "stderr"))
        return Finished(exit_code, errors, json.loads(output) if output else {}, folder)
