"""Schedules over the whole length of a run, and when a run is extended."""

import json

import pytest
import torch

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.step_plan import Facts, make_step_plan
from distrib.train.checkpoint.parts import OPTIMIZER
from distrib.train.optimization.group_values import ExtensionError, depends_on_length
from distrib.train.optimization.lr_schedule import (
    ScheduleError,
    SchedulerState,
    check_extension,
    check_length,
)
from distrib.train.resolved_job import ResolvedJob

SPEC = {
    "name": "job",
    "model": "exact_jobs:Mlp",
    "data": {"train": {"target": "exact_jobs:Points", "args": {"num_samples": 40}}, "batch_size": 10},
    "loss": "torch.nn:CrossEntropyLoss",
    "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}},
    "train": {"epochs": 2},
}
PLANNED = {"target": "torch.optim:SGD", "args": {"lr": "$steps"}}
"""Depends on the length of the run; for it, the tests build a `Planned`."""
LR = "torch.optim.lr_scheduler"
SCHEDULES = {
    "cosine": {"target": f"{LR}:CosineAnnealingLR", "args": {"T_max": "$steps"}},
    "one cycle": {"target": f"{LR}:OneCycleLR", "args": {"max_lr": 0.2, "total_steps": "$steps"}},
    "linear": {"target": f"{LR}:LinearLR", "args": {"total_iters": "$steps"}},
    "by epochs": {"target": f"{LR}:CosineAnnealingLR", "args": {"T_max": "$steps"}, "every": "epoch"},
}


@pytest.fixture
def load(tmp_path):
    """`load(schedule, epochs, optimizer)`: the resolved job and its plan."""

    def load(schedule, epochs=2, optimizer=SPEC["optimizer"]):
        path = tmp_path / "job.yaml"
        spec = {**SPEC, "optimizer": optimizer, "train": {"epochs": epochs}}
        path.write_text(json.dumps(spec if schedule is None else {**spec, "schedule": schedule}))
        job = Job.load(path)
        return ResolvedJob.resolve(job), make_step_plan(job.spec, Facts(40), 2)

    return load


class Planned(torch.optim.SGD):
    """Keeps the length of the run, and a count of steps, in its groups."""

    def __init__(self, total):
        super().__init__([torch.nn.Parameter(torch.zeros(()))], lr=0.1, momentum=0.9)
        self.param_groups[0].update(total=total, num_steps=0)

    def step(self, closure=None):
        self.param_groups[0]["num_steps"] += 1
        super().step(closure)


def make_optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.1, momentum=0.9)


def advance(scheduler, optimizer, steps):
    """The values of the optimizer that each step uses."""
    used = []
    for step in steps:
        used.append({name: optimizer.param_groups[0][name] for name in ("lr", "momentum")})
        optimizer.step()
        scheduler.after_step(step + 1)
    return used


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_extended_schedule_is_that_of_the_longer_run(load, name):
    short, optimizer = load(SCHEDULES[name], 2), make_optimizer()
    scheduler = SchedulerState(*short, optimizer)
    advance(scheduler, optimizer, range(8))
    saved, saved_optimizer = scheduler.state_dict(), optimizer.state_dict()

    long, continued = load(SCHEDULES[name], 4), make_optimizer()
    extended = SchedulerState(*long, continued)
    continued.load_state_dict(saved_optimizer)
    extended.load_state_dict(saved)
    whole_optimizer = make_optimizer()
    whole = advance(SchedulerState(*long, whole_optimizer), whole_optimizer, range(16))
    for ours, expected in zip(advance(extended, continued, range(8, 16)), whole[8:], strict=True):
        assert ours == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", [None, SCHEDULES["one cycle"]], ids=["alone", "scheduled"])
def test_an_extended_optimizer_has_the_plan_of_the_longer_run_and_its_own_count(load, schedule):
    optimizer, continued = Planned(8), Planned(16)
    scheduler = SchedulerState(*load(schedule, 2, PLANNED), optimizer)
    extended = SchedulerState(*load(schedule, 4, PLANNED), continued)
    advance(scheduler, optimizer, range(8))
    continued.load_state_dict(optimizer.state_dict())
    extended.load_state_dict(scheduler.state_dict())
    assert (continued.param_groups[0]["total"], continued.param_groups[0]["num_steps"]) == (16, 8)
    assert not extended.warnings


def test_a_value_of_the_plan_that_changes_in_training_cannot_be_extended(load):
    optimizer, continued = Planned(8), Planned(16)
    scheduler = SchedulerState(*load(None, 2, PLANNED), optimizer)
    extended = SchedulerState(*load(None, 4, PLANNED), continued)
    optimizer.param_groups[0]["total"] -= 1
    continued.load_state_dict(optimizer.state_dict())
    with pytest.raises(ExtensionError, match=r"'total' depends on \$steps and changes during training"):
        extended.load_state_dict(scheduler.state_dict())


def test_a_length_in_numbers_is_reported_when_a_run_is_extended_and_can_be_changed(load):
    fixed = {"target": f"{LR}:CosineAnnealingLR", "args": {"T_max": 8, "eta_min": 0.01}}
    optimizer = make_optimizer()
    scheduler = SchedulerState(*load(fixed), optimizer)
    advance(scheduler, optimizer, range(8))

    def extend(schedule):
        continued = make_optimizer()
        extended = SchedulerState(*load(schedule, 4), continued)
        continued.load_state_dict(optimizer.state_dict())
        extended.load_state_dict(scheduler.state_dict())
        return extended, continued.param_groups[0]["lr"]

    same, rate = extend(fixed)
    assert rate == pytest.approx(0.01)
    (message,) = same.warnings
    assert "T_max is 8, the length of the run before it was extended, and stays so" in message
    changed, rate = extend({**fixed, "args": {**fixed["args"], "T_max": 16}})
    assert rate == pytest.approx(0.055)
    assert not changed.warnings


def test_a_resumed_schedule_of_the_same_length_has_the_same_bits(load):
    resolved, plan = load(SCHEDULES["cosine"])
    optimizer, other = make_optimizer(), make_optimizer()
    scheduler = SchedulerState(resolved, plan, optimizer)
    advance(scheduler, optimizer, range(3))
    resumed = SchedulerState(resolved, plan, other)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert advance(resumed, other, range(3, 8)) == advance(scheduler, optimizer, range(3, 8))


def test_a_schedule_that_ends_before_the_run_is_refused(load):
    resolved, plan = load({"target": f"{LR}:OneCycleLR", "args": {"max_lr": 0.2, "total_steps": 5}})
    with pytest.raises(JobError, match=r"fails at its step 6 of 8: ValueError: Tried to step 6 times"):
        check_length(resolved, plan, make_optimizer, OPTIMIZER)
    check_length(*load(SCHEDULES["one cycle"]), make_optimizer, OPTIMIZER)


def test_what_depends_on_evaluations_and_on_the_length_cannot_be_extended(load):
    by_metric = {"target": f"{LR}:ReduceLROnPlateau", "args": {"patience": "$steps"}, "every": "eval", "metric": "loss"}
    evaluation = {"target": "exact_jobs:Points", "args": {"num_samples": 4}}
    SPEC["data"]["eval"] = evaluation
    try:
        with pytest.raises(JobError, match="cannot be rebuilt for a longer run"):
            check_extension(load(by_metric)[0])
    finally:
        del SPEC["data"]["eval"]
    check_extension(load(SCHEDULES["cosine"])[0])


def test_a_schedule_by_metrics_is_refused_by_steps(load):
    resolved, plan = load({"target": f"{LR}:ReduceLROnPlateau"})
    with pytest.raises(ScheduleError, match="needs the value of a metric; set every: eval"):
        SchedulerState(resolved, plan, make_optimizer())


@pytest.mark.parametrize(
    ("args", "is_so"), [({"a": "$steps"}, True), ({"a": [{"b": "$steps"}]}, True), ({"a": 1}, False)]
)
def test_targets_that_depend_on_the_length(load, args, is_so):
    schedule = load(SCHEDULES["cosine"])[0].job.spec.schedule
    assert depends_on_length(schedule.model_copy(update={"args": args})) == is_so
