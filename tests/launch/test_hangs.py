"""Ranks that stand still: named, with their stacks, and restarted; ranks that only take long are left alone."""

import pytest

from distrib.launch.failure_cause import find_cause, is_hang
from distrib.train.failure import Failure, error_text
from distrib.train.process.tracebacks import is_raised_by_torch

pytestmark = pytest.mark.timeout(150)


def fault(workplace, name, step, rank=1):
    args = f"{{fault: {name}, notes: {workplace.notes}, rank: {rank}, step: {step}}}"
    return f"model={{target: launch_jobs:Faulty, args: {args}}}"


def start(workplace, *sets):
    return workplace.start(*(f"--set={text}" for text in ["failures.hang_timeout=3", *sets]))


def test_a_lone_rank_that_hangs_before_its_first_step_is_restarted(workplace):
    launch = start(workplace, fault(workplace, "sleep", 0, rank=0), "resources.workers=1")
    assert launch.wait(60) == 0, launch.stdout
    (restart,) = [event for event in launch.run.events() if event["event"] == "restart"]
    assert "RankHangs: no step has ended for 3 s" in restart["message"]
    assert "in forward" in launch.run.layout.rank_log(0).read_text()


def test_a_rank_that_hangs_inside_a_weighted_step_is_the_one_that_is_named(workplace):
    workplace.write("weighted.py", WEIGHTED)
    sets = [f"step={{target: weighted:step, args: {{notes: {workplace.notes}}}}}", "loss=null"]
    launch = start(workplace, *sets, "resources.workers=3")
    assert launch.wait(90) == 0, launch.stdout
    (restart,) = [event for event in launch.run.events() if event["event"] == "restart"]
    assert restart["message"].startswith("rank 1 on ")
    assert "RankHangs" in restart["message"]


WEIGHTED = """
import time
from pathlib import Path

import torch.distributed as dist
from torch.nn.functional import cross_entropy


def step(model, batch, notes):
    inputs, targets = batch
    loss = cross_entropy(model(inputs), targets)
    note = Path(notes)
    if dist.get_rank() == 1 and not note.exists():
        note.touch()
        time.sleep(60)
    return {"loss": loss, "weight": float(len(targets)) + 0.5}
"""


def test_ranks_that_wait_for_data_longer_than_the_timeout_are_left_alone(workplace):
    """Steps of 2 s that are not logged for 8 s."""
    data = "data.train={target: launch_jobs:SlowSamples, args: {count: 20, seconds: 0.5}}"
    launch = start(workplace, data, "data.batch_size=4", "train.epochs=1", "train.log_every=100", "resources.workers=1")
    assert launch.wait(60) == 0, launch.stdout
    assert not [event for event in launch.run.events() if event["event"] == "restart"]


def test_a_stop_while_waiting_for_data_keeps_what_was_trained(workplace):
    """The first steps come from prefetched batches; then each takes 2 s."""
    data = "data.train={target: launch_jobs:SlowSamples, args: {count: 400, seconds: 0.5, first: 32}}"
    sets = [data, "data.batch_size=8", "failures.grace=20", "checkpoint.every=1 epoch", "train.log_every=1"]
    launch = workplace.start(*(f"--set={text}" for text in sets))
    launch.wait_for_step(5)
    launch.send(15)
    assert launch.wait(60) == 130, launch.stdout
    assert "checkpoint" in [event["event"] for event in launch.run.events()]


def failure(rank, kind="user", is_in_collective=False):
    return Failure(rank, "host", "RuntimeError", f"of {rank}", None, kind, float(rank), is_in_collective)


def test_an_error_in_a_collective_while_others_are_silent_is_a_hang_only_after_the_wait():
    written = {0: failure(0, is_in_collective=True)}
    assert is_hang(written, [1], has_waited=True)
    assert not is_hang(written, [1], has_waited=False)
    assert not is_hang(written, [], has_waited=True)
    assert not is_hang({**written, 2: failure(2)}, [1], has_waited=True)
    found = find_cause(written, {0: 1}, [1], has_waited=True)
    assert (found.rank, found.type, found.kind) == (1, "RankHangs", "hang")
    assert find_cause(written, {0: 1}, [1]).rank == 0


def test_errors_of_torch_itself_are_told_from_those_of_user_code():
    import torch

    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("mine")

    for x, expected in ((Mine.apply(torch.ones(1, requires_grad=True)), False), (torch.ones(1), True)):
        with pytest.raises(RuntimeError) as caught:
            x.sum().backward()
        assert is_raised_by_torch(caught.value) is expected


def test_any_exception_text_can_be_reported():
    class Unprintable(Exception):
        def __str__(self):
            raise ValueError("no text")

    assert error_text(Unprintable()) == "(its text cannot be shown: ValueError)"
    assert len(error_text(ValueError("x" * 10**6))) < 10**5
    assert error_text(ValueError("\udcff")) == "\udcff"
