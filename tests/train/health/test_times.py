"""What a rank computes is told from what it waits for, wherever in a step it is slow."""

import time

import pytest
import torch
from torch import nn

from distrib.train.health.times import RankTimes
from distrib.train.phases import Phase, RankProgress
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.timeout(120)

DELAY = 0.25
NUM_STEPS = 3


class Slow(nn.Module):
    """Rank 1 sleeps in its forward pass, or in its backward pass."""

    def __init__(self, rank, where):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 1)
        self._is_slow, self._where = rank == 1, where

    def forward(self, inputs):
        hidden = self.first(inputs)
        if self._is_slow and self._where == "forward":
            time.sleep(DELAY)
        if self._is_slow and self._where == "backward":
            hidden.register_hook(lambda _: time.sleep(DELAY))
        return self.last(hidden)


def measure(rank, world_size, where):
    """The mean times of the steps after the first one."""
    torch.manual_seed(0)
    model = Slow(rank, where)
    wrapped = nn.parallel.DistributedDataParallel(model)
    times = RankTimes(torch.device("cpu"), world_size, RankProgress.private())
    times.watch(list(model.parameters()))
    for number in range(1 + NUM_STEPS):
        times.begin_step()
        loss = wrapped(torch.ones(2, 4)).sum()
        times.begin_backward(loss)
        loss.backward()
        times.end_backward()
        times.end_step(0.01)
        if number == 0:
            times.end_window(1)
    times.end_window(2)
    found = times.flush()[2]
    return found.data, found.compute, found.wait, found.square


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_slow_rank_computes_and_the_others_wait(rank_server, where):
    rows = run_ranks(measure, 3, where)
    for rank, (data, compute, wait, square) in enumerate(rows):
        assert data == pytest.approx(0.01)
        assert square >= (data + compute) ** 2 * 0.999
        if rank == 1:
            assert compute > DELAY
            assert wait < DELAY
        else:
            assert compute < DELAY
            assert wait > DELAY / 2


def test_a_rank_without_others_has_no_hooks_and_never_waits():
    model = nn.Linear(4, 1)
    times = RankTimes(torch.device("cpu"), 1, RankProgress.private())
    times.watch(list(model.parameters()))
    times.begin_step()
    loss = model(torch.ones(2, 4)).sum()
    times.begin_backward(loss)
    loss.backward()
    times.end_backward()
    times.end_step(0.5)
    times.end_window(1)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    found = times.flush()[1]
    assert (found.data, found.wait) == (0.5, 0.0)
    assert found.compute > 0


def test_the_hook_moves_to_the_gradient_that_comes_last():
    """A step without it is not measured; the next one is."""
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    times = RankTimes(torch.device("cpu"), 2, RankProgress.private())
    times.watch([*first.parameters(), *second.parameters()])

    def step(*modules):
        value = torch.ones(1, 2)
        times.begin_step()
        for module in modules:
            value = module(value)
        loss = value.sum()
        times.begin_backward(loss)
        loss.backward()
        times.end_backward()
        times.end_step(0.0)

    def hooked():
        return [name for name, module in (("first", first), ("second", second)) for parameter in module.parameters()
                if parameter._post_accumulate_grad_hooks]  # fmt: skip

    step(first, second)
    assert hooked() == ["first"]
    step(second)
    assert hooked() == []
    step(second)
    assert hooked() == ["second"]
    times.end_window(3)
    assert times._closed[3].num_steps == 2


def test_a_rank_waits_once_its_gradients_are_computed_whichever_comes_last():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    parameters = [*first.parameters(), *second.parameters()]
    progress = RankProgress.private()
    times = RankTimes(torch.device("cpu"), 2, progress)
    times.watch(parameters)
    seen = []
    times.meanwhile(lambda: seen.append((progress.position.phase, sum(each.grad is not None for each in parameters))))

    def step(*modules):
        for each in parameters:
            each.grad = None
        value = torch.ones(1, 2)
        for module in modules:
            value = module(value)
        loss = value.sum()
        loss.backward(retain_graph=True)  # the first of two micro-batches: nobody is waited for
        progress.enter(Phase.BACKWARD)
        times.begin_backward(loss)
        loss.backward()
        times.end_backward()

    step(first, second)
    step(first, second)
    assert seen == [(Phase.REDUCE, 4)] * 2
    for _ in range(2):
        step(second)
        step(first, second)
    # The step in which the gradient that came last does not come is not seen; all later ones are.
    assert seen[2:] == [(Phase.REDUCE, 4), (Phase.REDUCE, 2), (Phase.REDUCE, 4)]


def test_waiting_for_a_collective_counts():
    times = RankTimes(torch.device("cpu"), 2, RankProgress.private())
    times.begin_step()
    with times.waiting():
        torch.ones(1).sum()
    times.end_step(0.0)
    with times.waiting():  # between two steps, as in an evaluation
        pass
    times.end_window(1)
    assert times.flush()[1].wait > 0


def test_fetching_within_a_step_is_waiting_for_data():
    progress = RankProgress.private()
    times = RankTimes(torch.device("cpu"), 2, progress)
    times.begin_step()
    with times.fetching():
        assert progress.position.phase is Phase.DATA
        time.sleep(0.05)
    times.end_step(0.0)
    times.end_window(1)
    means = times.flush()[1]
    assert means.data >= 0.05
    assert means.compute < means.data
