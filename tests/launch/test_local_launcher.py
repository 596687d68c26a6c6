"""What is noted, and what is refused, before a local run starts."""

from types import SimpleNamespace

import pytest

from distrib import run
from distrib.errors import JobError
from distrib.launch.local import launcher
from distrib.launch.local.launcher import LocalLauncher


@pytest.fixture
def notes(monkeypatch):
    """The notes about a job with this storage and number of workers, on a machine of 2 CPUs."""

    def notes(storage, workers, device="cpu"):
        monkeypatch.setattr(launcher, "usable_cpus", lambda: 2)
        job = SimpleNamespace(spec=SimpleNamespace(storage=str(storage)))
        request = SimpleNamespace(device=device, min_workers=workers, max_workers=workers, cpus_per_worker=1)
        return LocalLauncher(job).describe(request).notes

    return notes


def test_more_threads_than_cpus(notes, tmp_path):
    assert notes(tmp_path / "runs", 2) == ()
    assert notes(tmp_path / "runs", 3, "cuda") == ()
    assert notes(tmp_path / "runs", 3) == ("3 threads on 2 CPUs: the ranks will wait for each other",)


def test_storage_that_cannot_be_written(notes, tmp_path):
    assert notes(tmp_path / "new" / "runs", 1) == ()
    assert list(tmp_path.iterdir()) == []
    assert notes("s3://bucket/runs", 1) == ()
    (note,) = notes("/proc/runs", 1)
    assert "a run on this machine would be refused: storage: cannot write to /proc/runs" in note


def test_a_path_instead_of_a_job():
    with pytest.raises(JobError, match=r'run needs a Job, not a str; write run\(Job.load\("job.yaml"\)\)'):
        run("job.yaml", workers=2)
