"""Bad input is rejected with exit code 2 and one message that has location and fix, without a traceback."""

import os
import re

import pytest

pytestmark = pytest.mark.timeout(60)

MODULE = """
import torch

class Model(torch.nn.Linear):
    def __init__(self, width=1):
        super().__init__(2, 1)

class Data(torch.utils.data.Dataset):
    def __init__(self, count=12):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.ones(2) * index, torch.zeros(1)

class Stream:
    def __getitem__(self, index):
        return torch.ones(2), torch.zeros(1)

class Needy(Data):
    def __init__(self, path):
        super().__init__()

class Sealed(Data):
    def __init__(self):
        raise OSError("no such disk")

answer = 42
"""

JOB = """\
name: small
model: bad_input:Model
data:
  train: bad_input:Data
  eval: bad_input:Data
  batch_size: 8
loss: torch.nn:MSELoss
optimizer: {target: torch.optim:SGD, args: {lr: 0.001}}
train:
  epochs: 2
resources: {workers: 2, device: cpu}
"""

# What is replaced in the job's text (None: all of it), by what, and how the message begins and goes on.
SPEC = {
    "empty": (None, "", "job.yaml: is empty", ""),
    "not YAML": (None, "name: [1, 2\n", "job.yaml:2: is not YAML", ""),
    "a list": (None, "- name: small\n", "job.yaml:1: expected a mapping", "name, model, data"),
    "a tab": ("  batch_size", "\tbatch_size", "job.yaml:6: line 6 has a tab", "spaces"),
    "a key twice": ("name: small", "name: small\nname: big", "job.yaml:2: the key 'name' appears twice", "1 and 2"),
    "a tag": ("name: small", "name: !!python/name:os.system x", "job.yaml:1: YAML tags", ""),
    "a misspelt key": ("loss:", "los:", "job.yaml:7: los: unknown key 'los'", "did you mean 'loss'?"),
    "an unknown key": ("name: small", "name: small\ncolour: red", "job.yaml:2: colour: unknown key", "the keys here"),
    "a wrong type": ("batch_size: 8", "batch_size: many", "job.yaml:6: data.batch_size: expected a whole", "'many'"),
    "no workers": ("workers: 2", "workers: 0", "job.yaml:11: resources.workers: expected", "at least 1"),
    "min > max": ("workers: 2", "workers: {min: 3, max: 2}", "job.yaml:11: resources.workers: min (3)", "swap them"),
    "no loss": ("loss: torch.nn:MSELoss\n", "", "job.yaml:1: loss: loss or step is required", ""),
    "loss and step": ("loss:", "step: bad_input:step\nloss:", "job.yaml:7: step: loss and step exclude", "remove one"),
    "no length": ("  epochs: 2", "  seed: 1", "job.yaml:9: train: epochs or steps is required", ""),
    "epochs and steps": ("epochs: 2", "epochs: 2\n  steps: 3", "job.yaml:11: train.steps: epochs and", "remove one"),
    "a metric without eval": ("  eval: bad_input:Data\n", "METRIC", "job.yaml:6: metrics: metrics are", "data.eval"),
    "a metric named loss": ("loss:", "metrics: {loss: a:B}\nloss:", "job.yaml:7: metrics.loss: 'loss' is", "another"),
    "an undefined variable": ("name: small", "name: ${NO_SUCH_NAME}", "job.yaml:1: name: the environment", "export"),
}  # fmt: skip

OPTIONS = {
    "no such file": (["jub.yaml"], "jub.yaml: no such file; did you mean 'job.yaml'?"),
    "--set of no field": (
        ["job.yaml", "--set", "train.epoch=3"],
        "--set train.epoch=3: unknown field 'train.epoch'; did you mean 'train.epochs'?",
    ),
    "--set of a wrong type": (
        ["job.yaml", "--set", "train.epochs=x"],
        "--set train.epochs=x: train.epochs: expected a",
    ),
    "--set without a value": (["job.yaml", "--set", "train.epochs"], "--set train.epochs: "),
    "--workers": (["job.yaml", "--workers", "0"], "--workers: '0' is not a number of workers"),
    "--run-id": (["job.yaml", "--run-id", "../x"], "--run-id: '../x' cannot name a run"),
}

# A field and what it is set to, and how the message goes on behind the override.
TARGETS = {
    "no such module": ("model", "bad_inputs:Model", "model: there is no module 'bad_inputs'; did you mean 'bad"),
    "no such attribute": ("model", "bad_input:Modle", "model: 'bad_input:Modle': bad_input has no 'Modle'; did you"),
    "not callable": ("model", "bad_input:answer", "model: 'bad_input:answer' is of type int and cannot be called"),
    "no predict": ("predict", "bad_input:answer", "predict: 'bad_input:answer' is of type int and cannot be called"),
    "unknown argument": ("model.args.widht", "1", "model.args.widht: Model has no argument 'widht'; did you"),
    "missing argument": ("data.train", "bad_input:Needy", "data.train.args: Needy needs the argument 'path'"),
    "no length": ("data.train", "bad_input:Stream", "data.train: bad_input:Stream has no __len__"),
    "length 0": ("data.eval.args.count", "0", "data.eval: bad_input:Data is empty"),
    "cannot be built": ("data.train", "bad_input:Sealed", "data.train: bad_input:Sealed could not be built: OSError:"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with a job and its module."""
    (tmp_path / "bad_input.py").write_text(MODULE)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def assert_refused(result, place):
    """Exit code 2 and no trace; returns the message."""
    assert (result.returncode, result.stdout) == (2, "")
    lines = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert lines[0].startswith("distrib: ")
    assert "Traceback" not in result.stderr
    assert sorted(set(os.listdir(place)) - {"__pycache__"}) == ["bad_input.py", "job.yaml"]
    return "\n".join(lines).removeprefix("distrib: ")


def assert_light(distrib, place, *arguments):
    """The message, for which nothing heavy was imported; `tests.bench command-line` measures the time."""
    result = distrib("run", *arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = set(re.findall(r"\| +([\w.]+)$", result.stderr, re.MULTILINE))
    assert "distrib.job.reader" in imported or "distrib.cli.options" in imported
    assert imported & {"torch", "ray", "numpy", "bad_input"} == set()
    return assert_refused(result, place)


@pytest.mark.parametrize(("old", "new", "start", "more"), SPEC.values(), ids=SPEC)
def test_a_wrong_spec(distrib, place, old, new, start, more):
    if new == "METRIC":
        text = JOB.replace(old, "").replace("loss:", "metrics: {accuracy: a:B}\nloss:")
    else:
        text = new if old is None else JOB.replace(old, new, 1)
        assert old is None or old in JOB
    (place / "job.yaml").write_text(text)
    message = assert_light(distrib, place, "job.yaml")
    assert message.startswith(start)
    assert more in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "start"), OPTIONS.values(), ids=OPTIONS)
def test_a_wrong_option(distrib, place, arguments, start):
    assert assert_light(distrib, place, *arguments).startswith(start)


def test_all_problems_are_told_at_once(distrib, place):
    (place / "job.yaml").write_text(JOB.replace("batch_size: 8", "batch_size: 0").replace("epochs", "epoch"))
    lines = assert_light(distrib, place, "job.yaml").splitlines()
    assert [line.split()[0] for line in lines] == ["job.yaml:6:", "job.yaml:10:"]


@pytest.mark.parametrize(("field", "value", "message"), TARGETS.values(), ids=TARGETS)
def test_a_wrong_target(forked_distrib, place, field, value, message):
    result = forked_distrib("run", "job.yaml", "--set", f"{field}={value}")
    told = assert_refused(result, place)
    assert message in told
    assert told.startswith(("--set ", "job.yaml:"))


def test_no_gpu(forked_distrib, place):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    message = assert_refused(forked_distrib("run", "job.yaml", "--device", "cuda"), place)
    assert message.startswith("--set resources.device=")
    assert "this machine has no GPU; use cpu or auto (--device)" in message


@pytest.mark.parametrize("folder", ["job.yaml", "job.yaml/runs", "/proc/none/runs"])
def test_a_folder_that_cannot_be_written(forked_distrib, place, folder):
    message = assert_refused(forked_distrib("run", "job.yaml", "--runs-dir", folder), place)
    assert message.startswith("storage: cannot write to ")
    assert "--runs-dir" in message


@pytest.mark.parametrize(
    ("option", "note"),
    [
        ("data.batch_size=1", "smaller than the 2 workers"),
        ("data.batch_size=100", "larger than the dataset: each step takes all 12 samples"),
    ],
)
def test_what_is_odd_but_fine_is_noted(forked_distrib, place, option, note):
    result = forked_distrib("run", "job.yaml", "--set", option, "--set", "train.epochs=1")
    assert result.returncode == 0, result.stderr
    assert note in result.stdout
    assert note in forked_distrib("plan", "job.yaml", "--set", option).stdout
