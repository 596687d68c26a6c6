"""`distrib init` and `plan --try`: a first job, tried before it is started."""

import json
import os
import subprocess
import sys

import pytest

CONDITIONAL = '''
from torch import nn
from first_model import Net, Points


class Unused(Net):
    """A network with a layer that nothing uses."""

    def __init__(self, hidden):
        super().__init__(hidden)
        self.spare = nn.Linear(2, 2)


class Wrong(Net):
    """A network whose forward pass fails."""

    def forward(self, points):
        return super().forward(points.T)
'''


@pytest.fixture
def first(distrib, tmp_path):
    result = distrib("init", "first")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == [
        "check  distrib plan first/job.yaml --try",
        "train  distrib run first/job.yaml --workers 2",
    ]
    (tmp_path / "first" / "models.py").write_text(CONDITIONAL)
    return tmp_path / "first"


def test_nothing_is_overwritten(distrib, first):
    before = (first / "job.yaml").read_text()
    result = distrib("init", "first")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "first/job.yaml exists already" in result.stderr
    assert (first / "job.yaml").read_text() == before


def test_the_job_is_tried_on_a_batch(distrib, first):
    result = distrib("plan", "first/job.yaml", "--try", "--json", "--workers", "2")
    assert (result.returncode, result.stderr) == (0, "")
    trial = json.loads(result.stdout)["trial"]
    assert trial["batch"] == "(float32[32, 2], int64[32])"
    assert trial["outputs"] == "float32[32, 3]"
    assert 0.5 < trial["loss"] < 2
    assert trial["unused_parameters"] == []
    assert trial["peak_memory_bytes"] > 10_000_000


def test_unused_parameters_are_named(distrib, first):
    result = distrib("plan", "first/job.yaml", "--try", "--set", "model.target=models:Unused")
    assert "2 parameters without a gradient: spare.weight, spare.bias" in result.stdout
    assert "ddp.find_unused_parameters" in result.stdout


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ("optimizer.args={lr: '1e-3'}", "optimizer", "args.lr is the text '1e-3', not a number: remove the quotes"),
        ("model.target=models:Wrong", "loss", "first_model.py:"),
    ],
)
def test_what_fails_is_one_line_with_the_place(distrib, first, change, field, message):
    result = distrib("plan", "first/job.yaml", "--try", "--set", change)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert f"{field}: " in result.stderr
    assert message in result.stderr


@pytest.mark.long
def test_the_job_trains(distrib, first):
    result = distrib("run", "first/job.yaml", "--workers", "2", "--json", timeout=150)
    assert json.loads(result.stdout)["metrics"]["accuracy"] > 0.8


def test_shell_completion(tmp_path, distrib):
    (tmp_path / "runs" / "digits-1").mkdir(parents=True)
    environment = {**os.environ, "_DISTRIB_COMPLETE": "complete_bash"}

    def complete(words):
        given = {**environment, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        command = [sys.executable, "-c", "from distrib.cli.main import app; app(prog_name='distrib')"]
        return subprocess.run(
            command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60
        ).stdout.split()

    assert complete("distrib comp") == ["compare"]
    assert complete("distrib watch dig") == ["digits-1"]
    assert complete("distrib list --lim") == ["--limit"]
