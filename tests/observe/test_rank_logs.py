"""The output of all ranks in the order of time, each line with its rank and host."""

import os
import re
import time

import pytest

from distrib.cli.logs import logs
from distrib.launch.process.output import output_redirected
from distrib.launch.watch.failure_cause import log_errors
from distrib.observe.rank_logs import RankLogs
from distrib.train.failure import Failure


@pytest.fixture
def say(run):
    """Prints a line as a rank, later than what was printed before."""

    def print_as(rank, text, *, is_native=False):
        time.sleep(0.01)
        with output_redirected(run.layout, rank, f"host{rank + 1}"):
            if is_native:
                os.write(1, f"{text}\n".encode())
            else:
                print(text)

    return print_as


def test_lines_are_merged_by_time_and_have_their_rank_and_host(run, say, capfd):
    for rank, text in ((1, "one"), (0, "two"), (1, "three"), (0, "four")):
        say(rank, text, is_native=text == "two")
    logs(str(run.folder))
    assert capfd.readouterr().out.splitlines() == [
        "[rank 1 on host2] one",
        "[rank 0 on host1] two",
        "[rank 1 on host2] three",
        "[rank 0 on host1] four",
    ]
    logs(str(run.folder), times=True)
    stamped = capfd.readouterr().out.splitlines()
    assert all(re.match(r"\[\d\d:\d\d:\d\d\.\d{3} rank \d on host\d\] ", line) for line in stamped)
    assert stamped == sorted(stamped)
    logs(str(run.folder), rank=1)
    assert capfd.readouterr().out == "one\nthree\n"


def test_lines_of_one_process_are_timed_while_it_runs(run):
    before = time.time()
    with output_redirected(run.layout, 0, "host1"):
        print("first")
        time.sleep(0.5)
        print("second\nof two lines")
        print("no end", end="")
    tails = RankLogs(run)
    lines = tails.poll()
    assert [line.text for line in lines] == ["first", "second", "of two lines"]
    first, second, third = (line.time for line in lines)
    assert before - 0.001 < first < second - 0.2
    assert second == third < time.time() + 0.001  # times are kept in milliseconds
    assert [line.text for line in tails.poll(is_last=True)] == ["no end"]


def test_the_error_of_a_rank_has_the_time_at_which_it_failed(run, say):
    say(0, "works")
    failed = time.time()
    say(1, "waits")
    failure = Failure(0, "host1", "ValueError", "no such label", None, "user", failed)
    log_errors(run.folder, {0: failure})
    assert [(line.rank, line.text) for line in RankLogs(run).poll()] == [
        (0, "works"),
        (0, "ValueError: no such label"),
        (1, "waits"),
    ]


def test_logs_without_times_are_shown_rank_by_rank(run, say, capfd):
    for rank in (1, 0):
        say(rank, f"rank {rank}")
        run.layout.rank_log_times(rank).unlink()
    say(0, "timed again")
    logs(str(run.folder), times=True)
    shown = capfd.readouterr().out.splitlines()
    assert shown[:2] == ["[– rank 0] rank 0", "[– rank 1] rank 1"]
    assert shown[2].endswith("rank 0 on host1] timed again")
