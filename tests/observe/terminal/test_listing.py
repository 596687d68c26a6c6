"""The plan for people."""

from dataclasses import replace

import pytest

from distrib.job.plan import LaunchDescription
from distrib.job.step_plan import Facts, make_step_plan
from distrib.observe.terminal.listing import plan_listing


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_the_whole_listing(plan, spec):
    assert plan_listing(plan, spec, "my-run").splitlines() == [
        "Request",
        "  workers            2 local processes",
        "  device             cpu, gradients summed by gloo",
        "  CPUs               1 per worker, as many torch threads",
        "  time-outs          waits 5 min for a rank that hangs, 30 s for a run to stop",
        "",
        "Schedule",
        "  data               21 samples",
        "  steps              12 = 4 epochs of 3",
        "  batch              8 samples, 4 per rank",
        "  last of an epoch   5 samples, 2 to 3 per rank",
        "  precision          fp32",
        "  evaluation         10 samples every epoch, 4 per rank at a time",
        "",
        "Memory per worker, batches and activations apart",
        "  parameters         1 k",
        "  weights            3.91 KiB",
        "  gradients          3.91 KiB",
        "  optimizer          7.81 KiB",
        "  together           15.6 KiB",
        "",
        "Kept in runs/my-run",
        "  run.json           status, this plan and where the run comes from",
        "  metrics.jsonl      training every 10 steps, and every evaluation",
        "  checkpoints/       every epoch and at the end, 2 kept, 11.7 KiB each",
        "  model.safetensors  final weights, 3.91 KiB",
        "  logs/              what each rank prints",
    ]


def test_a_run_id_is_generated_if_none_is_given(plan, spec):
    assert "Kept in runs/digits-20" in plan_listing(plan, spec)


def test_steps_that_end_within_an_epoch(plan, spec):
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": None, "steps": 10})})
    listing = plan_listing(replace(plan, schedule=make_step_plan(spec, Facts(21, 10), 2)), spec)
    assert "  steps              10, 3 to an epoch\n" in listing
    assert "10 samples every epoch and at the end, 4 per rank at a time" in listing


def test_accumulation(plan, spec):
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"accumulate": 3})})
    listing = plan_listing(replace(plan, schedule=make_step_plan(spec, Facts(21, None), 2)), spec)
    assert "  accumulate         1 + 1 + 2 per rank\n" in listing
    assert "  evaluation         none: the job has no data.eval\n" in listing


def test_a_range_of_workers_on_ray_and_unknown_memory(plan, spec):
    request = replace(plan.request, launcher="ray", min_workers=2, max_workers=8)
    launch = LaunchDescription("Ray worker", {"placement_strategy": "PACK"})
    listing = plan_listing(replace(plan, request=request, memory=None, launch=launch), spec)
    assert "  workers            2 to 8 Ray workers\n" in listing
    assert "  placement strategy PACK\n" in listing
    assert "Memory" not in listing


def test_a_range_of_local_workers_and_what_is_noted_about_this_machine(plan, spec):
    request = replace(plan.request, min_workers=2, max_workers=4)
    launch = LaunchDescription("local process", is_elastic=False, notes=("4 threads on 2 CPUs",))
    listing = plan_listing(replace(plan, request=request, launch=launch), spec)
    assert "  workers            2 local processes of 2 to 4, as many as fit on this machine\n" in listing
    assert listing.endswith("Please note\n  4 threads on 2 CPUs")


def test_notes_are_wrapped(plan, spec):
    schedule = make_step_plan(spec, Facts(3, None), 4)
    lines = plan_listing(replace(plan, schedule=schedule), spec).splitlines()
    assert "Please note" in lines
    assert max(map(len, lines)) <= 80
