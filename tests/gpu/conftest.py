"""Trainings by the real command on a GPU; on the CPU too, where the same test can run there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distrib.runs.events import read_events

REPOSITORY = Path(__file__).parents[2]

JOB = {
    "name": "conv",
    "model": "gpu_jobs:Conv",
    "data": {"train": "gpu_jobs:Images", "batch_size": 16},
    "loss": "torch.nn:CrossEntropyLoss",
    "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.003}},
    "train": {"steps": 40, "log_every": 1, "deterministic": True},
    "checkpoint": {"every": "5 steps"},
    "resources": {"workers": 1},
}


def pytest_collection_modifyitems(items):
    """Skips what needs more GPUs than there are, and says how many that is."""
    count = torch.cuda.device_count()
    for item in items:
        if (mark := item.get_closest_marker("gpu")) is not None and Path(__file__).parent in item.path.parents:
            needed = mark.kwargs.get("count", 1)
            reason = f"needs {needed} GPU{'s' if needed > 1 else ''}, and there {'is' if count == 1 else 'are'} {count}"
            item.add_marker(pytest.mark.skipif(count < needed, reason=reason))


class Training:
    """A folder with a job, and the launches of its one run."""

    def __init__(self, folder, device):
        self.folder, self.device = folder, device
        folder.mkdir()
        shutil.copy(Path(__file__).with_name("gpu_jobs.py"), folder)
        (folder / "job.yaml").write_text(json.dumps(JOB))
        self._processes = []

    def start(self, *sets, job="job.yaml", options=()):
        command = [sys.executable, "-m", "distrib", "run", job, "--device", self.device, "--run-id", "run"]
        command += ["--runs-dir", str(self.folder / "runs"), *options, *(w for text in sets for w in ("--set", text))]
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def finish(self, *sets, exit_code=0, **others):
        assert self.start(*sets, **others).wait(300) == exit_code, self.output
        return self

    def kill_after(self, step, *sets, **others):
        """Kills the command, and so its ranks, as soon as a checkpoint of this step is committed."""
        process = self.start(*sets, **others)
        deadline = time.monotonic() + 200
        while not any(event["step"] >= step for event in self.events("checkpoint")):
            assert process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    @property
    def output(self):
        return (self.folder / "output").read_text()

    @property
    def weights(self):
        return (self.folder / "runs" / "run" / "model.safetensors").read_bytes()

    def events(self, kind):
        file = self.folder / "runs" / "run" / "metrics.jsonl"
        return [event for event in read_events(file) if event["event"] == kind] if file.exists() else []

    def close(self):
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


@pytest.fixture
def make_training(tmp_path):
    """`make_training(device)`: a folder to train in."""
    made = []

    def make(device):
        made.append(Training(tmp_path / f"training-{len(made)}", device))
        return made[-1]

    yield make
    for training in made:
        training.close()
