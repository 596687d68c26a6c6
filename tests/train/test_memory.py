"""The memory that a rank needs, against numbers done by hand."""

import json

import pytest

from distrib.job.reader import Job
from distrib.job.step_plan import Facts, make_step_plan
from distrib.train.checks.memory import estimate_memory
from distrib.train.resolved_job import ResolvedJob


@pytest.fixture
def estimate(tmp_path):
    """`estimate(model, optimizer)`: of a job with those targets."""

    def estimate(model, optimizer):
        spec = {
            "name": "job",
            "model": model,
            "data": {"train": {"target": "exact_jobs:Points", "args": {"num_samples": 47}}, "batch_size": 9},
            "loss": "torch.nn:CrossEntropyLoss",
            "optimizer": optimizer,
            "train": {"epochs": 2},
        }
        (tmp_path / "job.yaml").write_text(json.dumps(spec))
        job = Job.load(tmp_path / "job.yaml")
        return estimate_memory(ResolvedJob.resolve(job), make_step_plan(job.spec, Facts(47), 2))

    return estimate


WIDE = {"target": "exact_jobs:Mlp", "args": {"hidden": 4096, "dtype": "float32"}}
NUM_PARAMETERS = 6 * 4096 + 4096 + 4096 * 3 + 3


def test_adamw_keeps_two_states_for_each_parameter(estimate):
    memory = estimate(WIDE, "torch.optim:AdamW")
    assert memory.num_parameters == NUM_PARAMETERS
    assert memory.weights_bytes == memory.gradients_bytes == 4 * NUM_PARAMETERS
    num_tensors = 4
    assert 0 <= memory.optimizer_bytes - 8 * NUM_PARAMETERS <= 4 * num_tensors


def test_plain_sgd_keeps_none_and_momentum_one(estimate):
    assert estimate(WIDE, "torch.optim:SGD").optimizer_bytes == 0
    momentum = {"target": "torch.optim:SGD", "args": {"momentum": 0.9}}
    assert estimate(WIDE, momentum).optimizer_bytes == 4 * NUM_PARAMETERS


def test_float64_takes_twice_as_much(estimate):
    assert estimate("exact_jobs:Mlp", "torch.optim:SGD").weights_bytes == 8 * (6 * 8 + 8 + 8 * 3 + 3)


def test_frozen_parameters_have_no_gradient_and_buffers_weigh(estimate):
    memory = estimate("exact_jobs:Normalized", "torch.optim:AdamW")
    frozen, head = 6 * 8 + 8, 8 + 8 + 8 * 3 + 3
    assert memory.num_parameters == frozen + head
    assert memory.gradients_bytes == 8 * head
    assert memory.weights_bytes == 8 * (frozen + head) + 8 * (8 + 8 + 1)


def test_a_model_that_needs_real_memory_is_not_estimated(estimate):
    assert estimate({"target": "torch:load", "args": {"f": "missing.pt"}}, "torch.optim:SGD") is None
