"""Where the exchanges between ranks are placed."""

import pytest

from distrib.train.control import ExchangeInterval

LONGEST = 1000


def run(step_seconds, grace=30.0):
    """The seconds between the exchanges of a training whose steps take this long, one after the other."""
    interval, until, waited, gaps = ExchangeInterval(LONGEST, grace), 1, 0.0, []
    for seconds in step_seconds:
        interval.record(seconds)
        waited += seconds
        until -= 1
        if until == 0:
            until = interval.next()
            gaps.append(waited)
            waited = 0.0
    return [*gaps, waited]


def test_steady_steps_are_half_a_second_apart_after_a_few_exchanges():
    gaps = run([0.01] * 2000)
    assert gaps[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert max(gaps) <= 0.5 + 1e-9
    assert gaps[-2] == pytest.approx(0.5, rel=0.05)


def test_very_quick_steps_are_limited_by_the_longest_interval():
    assert max(run([1e-5] * 20_000)) == pytest.approx(1e-5 * LONGEST)


def test_slow_steps_exchange_every_time():
    assert run([2.0] * 10)[:-1] == pytest.approx([2.0] * 10)


@pytest.mark.parametrize("num_quick", [1, 2, 3, 8, 20, 60])
def test_steps_that_suddenly_wait_for_data_stay_within_half_of_the_grace(num_quick):
    """As when prefetched batches have been used up: quick steps, then slow ones."""
    assert max(run([0.005] * num_quick + [1.0] * 200)) <= 60.0
    assert max(run(([0.005] * num_quick + [1.0] * 3) * 20)) <= 15.0


def test_a_slow_first_step_is_forgotten():
    gaps = run([20.0] + [0.005] * 5000)
    assert gaps[-2] == pytest.approx(0.5, rel=0.1)
