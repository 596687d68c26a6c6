"""Warnings of ranks whose output nobody watches reach the events, once."""

import warnings

import pytest

from distrib.train.health.rank_warnings import RankWarnings


@pytest.mark.timeout(120)
@pytest.mark.runs("fault-warning")
def test_a_warning_of_some_ranks_is_an_event_and_one_of_all_ranks_is_not(run):
    assert run.exit_code == 0, run.errors
    given = [event["message"] for event in run.events("warning") if "UserWarning" in event["message"]]
    (message,) = given
    assert message.startswith("ranks 1, 2: UserWarning: this host has no fast kernel (fault_jobs.py:")
    assert "no fast kernel" not in run.layout.rank_log(0).read_text()
    for rank in (1, 2):
        log = run.layout.rank_log(rank).read_text()
        assert "UserWarning: this host has no fast kernel" in log
        assert "is the sum of the batch" in log


def test_messages_that_differ_in_numbers_are_the_same():
    first, other = RankWarnings(is_first=True), RankWarnings(is_first=False)
    first.add("7 of 8 targets count")
    for number in range(3):
        other.add(f"{number} of 8 targets count, 1e-3")
        other.add(f"weight {number}")
    assert other.num_pending == 2
    assert first.merge([[], other.take(), ["weight 9.5", "7.25 of 8 targets count"]]) == [
        "rank 1: 0 of 8 targets count, 1e-3",
        "ranks 1, 2: weight 0",
    ]
    assert other.take() == []
    assert first.merge([[], ["weight 4"]]) == []


def test_python_shows_warnings_as_before_meanwhile_and_afterwards(capsys):
    show = warnings.showwarning
    found = RankWarnings(is_first=False)
    with found.collecting(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = warnings.showwarning
        warnings.warn("odd", stacklevel=1)
    assert warnings.showwarning is show
    assert any("UserWarning: odd (test_rank_warnings.py:" in message for message in found.take())
