"""The arithmetic of the plan: slices cover batches, batches cover epochs, steps and samples agree."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib.job.plan import make_request
from distrib.job.spec.amounts import Interval
from distrib.job.spec.job import JobSpec
from distrib.job.spec.targets import Target
from distrib.job.step_plan import Facts, make_step_plan, split_evenly, with_steps


def make_spec(**train: Any) -> JobSpec:
    batch_size = train.pop("batch_size", 64)
    data = {"train": "a:b", "eval": "a:c", "batch_size": batch_size, "eval_batch_size": train.pop("eval_batch", None)}
    fields = {"name": "job", "model": "a:d", "data": data, "loss": "a:e", "optimizer": "a:f", "train": train}
    return JobSpec.model_validate(fields)


sizes = st.integers(1, 5000)
lengths = st.fixed_dictionaries({"epochs": st.integers(1, 20)}) | st.fixed_dictionaries({"steps": st.integers(1, 500)})


@given(st.integers(0, 10**12), st.integers(1, 5000))
def test_slices_cover_the_whole_and_differ_by_one_at_most(total: int, parts: int) -> None:
    slices = split_evenly(total, parts)
    assert len(slices) == parts
    assert sum(slices) == total
    assert max(slices) - min(slices) <= 1
    assert all(sum(slices[:rank]) == rank * total // parts for rank in range(0, parts, max(1, parts // 7)))


@given(sizes, sizes, st.integers(1, 64), st.integers(1, 9), lengths)
def test_batches_cover_an_epoch(
    samples: int, batch_size: int, world_size: int, accumulate: int, length: dict[str, int]
) -> None:
    spec = make_spec(batch_size=batch_size, accumulate=accumulate, **length)
    schedule = make_step_plan(spec, Facts(samples, 10), world_size)
    totals = [schedule.samples_after(step) for step in range(schedule.steps_per_epoch + 1)]
    batches = [after - before for before, after in pairwise(totals)]
    assert sum(batches) == samples
    assert set(batches[:-1]) <= {schedule.global_batch_size}
    assert 1 <= batches[-1] <= schedule.global_batch_size <= batch_size
    assert sum(schedule.rank_batches) == schedule.global_batch_size
    assert sum(schedule.last_rank_batches) == schedule.last_batch_size
    assert len(schedule.rank_batches) == len(schedule.last_rank_batches) == world_size
    assert sum(schedule.micro_batches) == max(schedule.rank_batches)
    assert 1 <= len(schedule.micro_batches) <= accumulate
    assert schedule.eval_batch_size * world_size >= schedule.global_batch_size
    assert schedule.total_steps == length.get("steps", length.get("epochs", 0) * schedule.steps_per_epoch)


@given(sizes, sizes, lengths, st.data())
def test_steps_positions_and_samples_agree(
    samples: int, batch_size: int, length: dict[str, int], data: st.DataObject
) -> None:
    schedule = make_step_plan(make_spec(batch_size=batch_size, **length), Facts(samples), 2)
    completed = data.draw(st.integers(0, schedule.total_steps - 1))
    epoch, step = schedule.position(completed)
    assert epoch * schedule.steps_per_epoch + step == completed
    assert 0 <= step < schedule.steps_per_epoch
    taken = schedule.samples_after(completed + 1) - schedule.samples_after(completed)
    is_last = step == schedule.steps_per_epoch - 1
    assert taken == (schedule.last_batch_size if is_last else schedule.global_batch_size)
    assert schedule.is_end_of_epoch(completed + 1) == (step == schedule.steps_per_epoch - 1)
    assert schedule.samples_after(0) == 0


@given(sizes, st.integers(1, 100), st.integers(1, 30), st.integers(1, 50))
def test_the_schedule_is_the_same_on_any_number_of_workers(
    samples: int, batch_size: int, epochs: int, world_size: int
) -> None:
    spec = make_spec(batch_size=batch_size, epochs=epochs)
    one, many = (make_step_plan(spec, Facts(samples, samples), workers) for workers in (1, world_size))
    assert (one.total_steps, one.steps_per_epoch) == (many.total_steps, many.steps_per_epoch)
    assert one.samples_after(one.total_steps) == many.samples_after(many.total_steps) == epochs * samples
    assert one.eval_interval_steps == many.eval_interval_steps


@given(sizes, st.integers(1, 300), st.integers(1, 60), st.integers(1, 60))
def test_first_and_last_step_are_logged_and_the_last_evaluated(
    samples: int, steps: int, log_every: int, eval_every: int
) -> None:
    spec = make_spec(steps=steps, log_every=log_every, eval_every=f"{eval_every} steps")
    schedule = make_step_plan(spec, Facts(samples, 5), 2)
    logged = [step for step in range(1, steps + 1) if schedule.is_logged(step)]
    evaluated = [step for step in range(1, steps + 1) if schedule.is_evaluated(step)]
    assert logged[0] == 1
    assert logged[-1] == evaluated[-1] == steps
    assert set(range(log_every, steps + 1, log_every)) <= set(logged)
    assert set(evaluated) == {*range(eval_every, steps + 1, eval_every), steps}


@pytest.mark.parametrize("change", [{"facts": Facts(100)}, {"eval_every": "never"}])
def test_nothing_is_evaluated_without_data_or_interval(change: dict[str, Any]) -> None:
    facts = change.pop("facts", Facts(100, 10))
    schedule = make_step_plan(make_spec(epochs=3, **change), facts, 1)
    assert not any(schedule.is_evaluated(step) for step in range(1, schedule.total_steps + 1))


def test_what_may_surprise_is_noted() -> None:
    assert make_step_plan(make_spec(epochs=1), Facts(100), 2).notes == ()
    (large,) = make_step_plan(make_spec(epochs=1), Facts(50), 2).notes
    assert large == "data.batch_size 64 is larger than the dataset: each step takes all 50 samples"
    (few,) = make_step_plan(make_spec(epochs=1, batch_size=2), Facts(50), 3).notes
    assert few == "the global batch of 2 is smaller than the 3 workers: some ranks have no samples in a step"


def test_evaluation_batches_can_be_set() -> None:
    assert make_step_plan(make_spec(epochs=1, eval_batch=7), Facts(100, 10), 2).eval_batch_size == 7
    assert make_step_plan(make_spec(epochs=1, batch_size=65), Facts(100, 10), 2).eval_batch_size == 33


def test_the_plan_fills_in_its_numbers() -> None:
    schedule = make_step_plan(make_spec(epochs=3), Facts(100), 1)
    target = Target(target="a:b", args={"a": "$steps", "b": ["$steps_per_epoch", {"c": "$steps"}], "d": "$steps!"})
    assert with_steps(target, schedule).args == {"a": 6, "b": [2, {"c": 6}], "d": "$steps!"}
    assert target.args["a"] == "$steps"


@pytest.mark.parametrize(("workers", "bounds"), [(3, (3, 3)), ({"min": 2, "max": 8}, (2, 8))])
def test_the_request_follows_from_spec_and_device(workers: Any, bounds: tuple[int, int]) -> None:
    resources = {"workers": workers, "cpus_per_worker": 4}
    spec = JobSpec.model_validate({**make_spec(epochs=1).model_dump(), "resources": resources})
    request = make_request(spec, "ray", "cuda")
    assert (request.min_workers, request.max_workers) == bounds
    assert request.resources_per_worker == {"CPU": 4.0, "GPU": 1.0}
    assert request.backend == "nccl"
    assert make_request(spec, "local", "cpu").resources_per_worker == {"CPU": 4.0}
    assert make_request(spec, "local", "cpu").backend == "gloo"


@pytest.mark.parametrize(
    ("text", "steps"), [("never", 0), ("1 step", 1), ("20 steps", 20), ("1 epoch", 7), ("3 epochs", 21)]
)
def test_intervals_in_steps(text: str, steps: int) -> None:
    assert Interval.parse(text).in_steps(7) == steps
