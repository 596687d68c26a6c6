"""Options that become overrides of the job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib.cli.options import check_run_id, load_job, make_overrides, runs_location
from distrib.errors import JobError


@pytest.fixture(autouse=True)
def no_runs_dir(monkeypatch):
    monkeypatch.delenv("DISTRIB_RUNS_DIR", raising=False)


def load(job, *sets, workers=None, device=None, runs_dir=None):
    return load_job(str(job), list(sets), workers=workers, device=device, runs_dir=runs_dir).spec


def test_no_options_change_nothing():
    assert make_overrides(None) == []


def test_options_reach_the_spec(job):
    spec = load(job, "train.steps=7", workers="3", device="cpu", runs_dir="here")
    assert (spec.train.steps, spec.resources.workers, spec.resources.device, spec.storage) == (7, 3, "cpu", "here")


def test_a_range_of_workers(job):
    workers = load(job, workers="2..8").resources.workers
    assert (workers.min, workers.max) == (2, 8)


def test_an_option_wins_over_set(job):
    spec = load(job, "resources.workers=5", "storage=there", workers="3", runs_dir="here")
    assert (spec.resources.workers, spec.storage) == (3, "here")


def test_the_environment_wins_over_the_file_alone(job, monkeypatch):
    monkeypatch.setenv("DISTRIB_RUNS_DIR", "environment")
    assert load(job).storage == "environment"
    assert load(job, "storage=there").storage == "there"
    assert load(job, runs_dir="here").storage == "here"
    monkeypatch.setenv("DISTRIB_RUNS_DIR", "")
    assert load(job).storage == "runs"


@pytest.mark.parametrize("text", ["", "0", "-1", "02", "2..", "..2", "2...4", "two", "2.0", "٣", "2\n"])
def test_what_is_no_number_of_workers(text):
    with pytest.raises(JobError, match="--workers"):
        make_overrides([], workers=text)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$~"), min_size=1))
def test_any_name_of_a_folder_survives(job_file, folder):
    assert load(job_file, runs_dir=folder).storage == folder


@pytest.fixture(scope="module")
def job_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(
        "{name: n, model: a:M, data: {train: a:D, batch_size: 1}, loss: a:L, optimizer: a:O, train: {steps: 1}}"
    )
    return path


def test_the_home_folder_is_expanded(job, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert load(job, runs_dir="~/runs").storage == "/home/someone/runs"
    assert runs_location("~/runs") == "/home/someone/runs"


def test_the_folder_of_runs_without_a_job(monkeypatch):
    assert runs_location(None) == "runs"
    monkeypatch.setenv("DISTRIB_RUNS_DIR", "environment")
    assert runs_location(None) == "environment"
    assert runs_location("here") == "here"
    assert runs_location("s3://bucket/~runs") == "s3://bucket/~runs"


def test_run_ids():
    check_run_id(None)
    check_run_id("digits-1.a_B")
    for text in ("", "-x", ".", "a/b", "a b", "x" * 101):
        with pytest.raises(JobError, match="--run-id"):
            check_run_id(text)
