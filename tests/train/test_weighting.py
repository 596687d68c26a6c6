"""What weighs stays the same, with the same rounding, when a run is resumed on several hosts."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from distrib.train.data.sampler import EpochIndices, MicroBatch
from distrib.train.objective.loss_weights import loss_form
from distrib.train.objective.task import StepOutput
from distrib.train.objective.weighting import Weighting
from distrib.train.phases import RankProgress
from distrib.train.process import shared_steps
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.usefixtures("rank_server"), pytest.mark.timeout(60)]

PART = MicroBatch(EpochIndices([0, 1, 2], 0), 3)


def output(num_targets, num_counted):
    return StepOutput(
        torch.tensor(1.0),
        None,
        count=lambda: torch.tensor(float(num_counted)),
        has_ignored=num_counted < num_targets,
        num_rows=num_targets,
    )


def resume(rank, world_size, are_on_hosts):
    """The weights of a rank's slices of 3 sequences of 7 targets: of all of them, then of 18 of the 21."""
    task = SimpleNamespace(form=loss_form(torch.nn.CrossEntropyLoss()), loss=torch.nn.CrossEntropyLoss())
    plan = SimpleNamespace(world_size=world_size, accumulate=1)
    place = SimpleNamespace(device=torch.device("cpu"), control_group=dist.group.WORLD, progress=RankProgress.private())
    before = Weighting(task, plan, place)
    before.weight(output(21, 21), PART, 1)
    if are_on_hosts:
        shared_steps._boot_id = lambda: str(rank)
    resumed = Weighting(task, plan, place)
    resumed.load_state_dict(before.state_dict())
    usual = resumed.weight(output(21, 21), PART, 2)
    is_summed = resumed.is_uneven(2)
    dist.barrier()
    fewer = resumed.weight(output(21, 18), PART, 3)
    dist.barrier()
    return usual, is_summed, fewer, resumed.is_uneven(3), resumed.is_weighted, resumed.state_dict()


def test_numbers_of_samples_weigh_after_a_resume_on_hosts_that_share_no_memory():
    """There, they are summed in every step, which multiplies gradients by exactly 1 in most of them."""
    state = {"counts_targets": False, "rows_per_sample": 7.0}
    assert run_ranks(resume, 2, False) == [(3, False, 18 / 7, True, False, state)] * 2
    assert run_ranks(resume, 2, True) == [(3, True, 18 / 7, True, False, state)] * 2


@pytest.mark.parametrize(("loss", "way"), [(None, "or return from step {"), (torch.nn.MSELoss(), "or use step: and")])
def test_a_loss_that_is_no_mean_is_reported_with_a_way_that_the_job_has(loss, way):
    task = SimpleNamespace(form=loss_form(torch.nn.MSELoss()), loss=loss, loss_name="own")
    place = SimpleNamespace(device=torch.device("cpu"), control_group=None, progress=RankProgress.private())
    weighting = Weighting(task, SimpleNamespace(world_size=1, accumulate=1), place)
    weighting._is_weighted, weighting._graph = False, SimpleNamespace(find=lambda *_: "is a sum")
    weighting.weight(StepOutput(torch.tensor(1.0), None), PART, 1)
    assert way in weighting.warnings[0]
