"""What a size's row says of samples whose truth is known."""

import pytest

from distrib.scale.results import summarize
from tests.support.scale_results import make_measurement, make_result, true_parts


def test_a_row_gives_back_the_parts_of_a_step():
    row = make_result()["sizes"][2]
    truth = dict(zip(("data", "compute", "communication", "optimizer"), true_parts(4), strict=True))
    assert row["split"] == pytest.approx(truth, rel=0.05)
    assert row["step_seconds"] == pytest.approx(sum(truth.values()), rel=0.02)
    assert row["interval"][0] <= row["step_seconds"] <= row["interval"][1]
    assert row["notes"] == []


@pytest.mark.parametrize("mode", ["strong", "weak"])
def test_efficiency_is_against_the_smallest_size(mode):
    sizes = make_result(mode=mode)["sizes"]
    one, four = sum(true_parts(1, mode)), sum(true_parts(4, mode))
    expected = one / four if mode == "weak" else one / four / 4
    assert sizes[0]["efficiency"] == 1
    assert sizes[2]["efficiency"] == pytest.approx(expected, rel=0.02)
    low, high = sizes[2]["efficiency_interval"]
    assert low <= expected <= high or high - low < 0.02


def test_a_single_size_has_no_efficiency():
    (row,) = make_result(workers=(2,))["sizes"]
    assert (row["efficiency"], row["speedup"]) == (None, None)


def test_a_size_that_fails_leaves_the_others():
    samples = make_result(workers=(1, 2))["samples"]
    rows = summarize([*samples, {"workers": 4, "repeat": 0, "error": "rank 3 failed"}], (1, 2, 4))
    assert [row["status"] for row in rows] == ["measured", "measured", "failed"]
    assert rows[2]["error"] == "rank 3 failed"
    assert rows[1]["efficiency"] is not None


def test_few_steps_and_noise_are_said():
    samples = [{"workers": 1, "repeat": 0, "measurement": make_measurement(1, num_steps=5, noise=0.5)}]
    (row,) = summarize(samples, (1,))
    assert next(note.split(":")[0] for note in row["notes"]) == "only 5 steps measured"
    assert any("repeats" in note for note in row["notes"])
    assert any(note.startswith("noisy") for note in row["notes"])


def test_an_epochs_smaller_last_step_does_not_count():
    measurement = make_measurement(1)
    measurement["steps"][0] = {**measurement["steps"][0], "samples": 3, "seconds": [1e9, 1e9]}
    (row,) = summarize([{"workers": 1, "repeat": 0, "measurement": measurement}], (1,))
    assert row["num_steps"] == 29
    assert row["interval"][1] < 1


def test_cores_that_bound_a_step_are_said():
    samples = [{"workers": 1, "repeat": 0, "measurement": make_measurement(1) | {"cores_busy": 0.97}}]
    (row,) = summarize(samples, (1,))
    assert row["cores_busy"] == 0.97
    assert any("97% busy: they bound the step" in note for note in row["notes"])
