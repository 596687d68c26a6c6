"""Runs a job of this repository through the real command, as a user would."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distrib.runs.events import read_events

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """What a run left behind."""

    output: dict[str, Any]
    folder: Path

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.folder / "metrics.jsonl") if event["event"] == kind]


@pytest.fixture
def run_job(tmp_path: Path) -> Callable[..., Finished]:
    """`run_job("digits.yaml", "train.epochs=1", …)`: trains a job of this repository with some fields set."""

    def run(spec: str, *settings: str) -> Finished:
        command = [sys.executable, "-m", "distrib", "run", f"jobs/{spec}", "--json"]
        command += ["--runs-dir", str(tmp_path), "--run-id", "run"]
        command += [word for setting in settings for word in ("--set", setting)]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, done.stderr
        return Finished(json.loads(done.stdout), tmp_path / "run")

    return run
