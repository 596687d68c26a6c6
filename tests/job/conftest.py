"""Valid and invalid job files."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job

VALID = """\
# digits, for the tests of the reader
name: digits
model: {target: jobs.digits:Mlp, args: {hidden: 256}}
data:
  train: {target: jobs.digits:Digits, args: {split: train}}
  eval: jobs.digits:Digits
  batch_size: 64  # global
loss: torch.nn:CrossEntropyLoss
metrics:
  accuracy: {target: torchmetrics.classification:MulticlassAccuracy, args: {num_classes: 10}}
optimizer: torch.optim:AdamW
train:
  epochs: 10
resources:
  workers: 2
"""


@pytest.fixture
def text() -> str:
    """The YAML of a valid spec."""
    return VALID


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[..., Job]:
    """`load(text, override, …)`: the job of that YAML, read from `job.yaml` in the working directory."""

    def load(text: str, *overrides: str) -> Job:
        (folder / "job.yaml").write_bytes(text.encode())
        return Job.load("job.yaml", overrides)

    return load


@pytest.fixture
def refusal(load: Callable[..., Job]) -> Callable[..., list[str]]:
    """`refusal(text, override, …)`: the lines of the error that reading it must raise."""

    def refusal(text: str, *overrides: str) -> list[str]:
        with pytest.raises(JobError) as caught:
            load(text, *overrides)
        assert caught.value.exit_code == 2
        return str(caught.value).splitlines()

    return refusal


@pytest.fixture
def job(load: Callable[..., Job], text: str) -> Job:
    """A valid job."""
    return load(text)


@pytest.fixture
def modules(folder: Path) -> Iterator[Callable[[str, str], None]]:
    """`modules("jobs/digits.py", text)` writes a module; what the test imports is forgotten after it."""
    paths, known = list(sys.path), set(sys.modules)

    def write(name: str, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    sys.path[:] = paths
    for name in _loaded_from(folder, sorted(set(sys.modules) - known)):
        del sys.modules[name]
    for entry in [entry for entry in sys.path_importer_cache if entry.startswith(str(folder))]:
        del sys.path_importer_cache[entry]


def _loaded_from(folder: Path, names: Sequence[str]) -> list[str]:
    def is_below(name: str) -> bool:
        module = vars(sys.modules[name])
        locations = [module.get("__file__") or "", *map(str, module.get("__path__", []))]
        return any(place.startswith(str(folder)) for place in locations)

    return [name for name in names if is_below(name)]
