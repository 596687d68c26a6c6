"""What a killed rank was just writing is cut off; what the next attempt writes is whole."""

import json

import pytest

from distrib.train.data.loader import StepBatch
from distrib.train.data.sample_record import SampleRecord
from tests.support.recovery_runs import job

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("torn", [b"", b'{"attempt": 0, "epoch": 0, "st', b"\n"])
def test_a_record_of_samples_after_a_torn_line(tmp_path, torn):
    path = tmp_path / "rank-0.jsonl"
    path.write_bytes(torn)
    record = SampleRecord(path, 1)
    for step in (1, 2):
        record.write(StepBatch(step - 1, 0, [], []))
    lines = [line for line in path.read_bytes().removeprefix(torn).split(b"\n") if line]
    assert [json.loads(line) for line in lines] == [
        {"attempt": 1, "epoch": 0, "step": step, "ids": []} for step in (1, 2)
    ]


def test_a_window_that_a_kill_has_cut_is_measured_as_a_whole(make_place):
    model = {"target": "recovery_jobs:Fragile", "args": {"seconds": 0.02}}
    place = make_place("killed", job(model=model, train={"steps": 40, "log_every": 20}))
    place.plan([{"moment": "forward", "rank": 0, "nth": 39, "victim": "self"}])
    place.finish()
    newest = place.events("train")[-1]
    assert newest["step"] == 40
    assert newest["step_seconds"] >= 0.02
    assert newest["samples_per_second"] <= 8 / 0.02
