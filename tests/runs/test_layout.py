"""Paths and ids of runs."""

from datetime import datetime
from pathlib import Path

from distrib.job.spec.patterns import is_run_name
from distrib.runs.layout import RunLayout, new_run_id

NOW = datetime(2026, 3, 4, 5, 6, 7)


def test_paths_follow_the_contract():
    layout = RunLayout(Path("runs/x"))
    assert layout.job_file == Path("runs/x/job.yaml")
    assert layout.record_file == Path("runs/x/run.json")
    assert layout.metrics_file == Path("runs/x/metrics.jsonl")
    assert layout.weights_file == Path("runs/x/model.safetensors")
    assert layout.rank_log(3) == Path("runs/x/logs/rank-3.log")
    assert layout.rank_error(3) == Path("runs/x/logs/rank-3.error.json")
    assert layout.samples_file(3) == Path("runs/x/samples/rank-3.jsonl")


def test_a_new_id_names_job_and_time_and_differs_each_time():
    ids = {new_run_id("digits", NOW) for _ in range(20)}
    assert len(ids) > 10
    assert all(text.startswith("digits-20260304-050607-") and len(text) == 27 for text in ids)


def test_the_id_of_the_longest_name_is_still_a_run_name():
    assert is_run_name(new_run_id("n" * 100, NOW))
