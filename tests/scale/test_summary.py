"""The row of a size, from samples whose true values are known."""

from dataclasses import replace

import pytest

from distrib.scale.measurement import MeanMax
from distrib.scale.result import Sample
from distrib.scale.summary import summarize
from tests.support.scale_results import make_measurement, make_result, true_parts


def alone(measurement, workers=1):
    """The row of a size that was measured once."""
    (row,) = summarize([Sample(workers=workers, repeat=0, measurement=measurement)], (workers,))
    return row


def test_a_row_recovers_the_parts_of_a_step():
    row = make_result().measured[2]
    truth = dict(zip(("data", "compute", "communication", "optimizer"), true_parts(4), strict=True))
    assert vars(row.split) == pytest.approx(truth, rel=0.05)
    assert row.step_seconds == pytest.approx(sum(truth.values()), rel=0.02)
    assert row.interval[0] <= row.step_seconds <= row.interval[1]
    assert row.notes == ()


@pytest.mark.parametrize("mode", ["strong", "weak"])
def test_efficiency_is_relative_to_the_smallest_size(mode):
    sizes = make_result(mode=mode).measured
    one, four = sum(true_parts(1, mode)), sum(true_parts(4, mode))
    expected = one / four if mode == "weak" else one / four / 4
    assert sizes[0].efficiency == 1
    assert sizes[2].efficiency == pytest.approx(expected, rel=0.02)
    low, high = sizes[2].efficiency_interval
    assert low <= expected <= high or high - low < 0.02


def test_a_single_size_has_no_efficiency():
    row = alone(make_measurement(2), workers=2)
    assert (row.efficiency, row.speedup, row.limit) == (None, None, None)


def test_a_failed_size_leaves_the_others():
    samples = make_result(workers=(1, 2)).samples
    rows = summarize([*samples, Sample(workers=4, repeat=0, error="rank 3 failed")], (1, 2, 4))
    assert [row.status for row in rows] == ["measured", "measured", "failed"]
    assert rows[2].error == "rank 3 failed"
    assert rows[1].efficiency is not None


def test_few_steps_and_noise_are_noted():
    row = alone(make_measurement(1, num_steps=5, noise=0.5))
    assert row.notes[0].startswith("only 5 steps measured")
    assert any("repeats" in note for note in row.notes)
    assert any(note.startswith("noisy") for note in row.notes)


def test_an_epochs_smaller_last_step_does_not_count():
    measurement = make_measurement(1)
    last = replace(measurement.steps[0], samples=3, seconds=MeanMax(1e9, 1e9))
    row = alone(replace(measurement, steps=(last, *measurement.steps[1:])))
    assert row.num_steps == 29
    assert row.interval[1] < 1


def test_the_limit_is_the_largest_loss_compared_with_perfect_scaling():
    _, two, four = make_result().measured
    data, compute, communication, optimizer = true_parts(4)
    base = true_parts(1)
    losses = {
        "communication": communication,
        "compute that does not scale": compute - base[1] / 4,
        "waiting for data": data - base[0] / 4,
        "the optimizer": optimizer - base[3] / 4,
    }
    assert four.limit == max(losses, key=losses.get)
    assert two.limit in losses


def test_busy_cores_are_the_limit_and_noted():
    samples = [
        Sample(workers=size, repeat=0, measurement=replace(make_measurement(size), cores_busy=busy))
        for size, busy in ((1, 0.5), (2, 0.97))
    ]
    one, two = summarize(samples, (1, 2))
    assert one.limit is None
    assert two.limit == "the CPU cores (97 % busy)"
    assert any("97 % busy: they limit the step" in note for note in two.notes)


def test_busy_cores_do_not_limit_a_gpu():
    assert alone(replace(make_measurement(1), cores_busy=0.97, device="cuda")).limit is None
