"""How a batch becomes a loss, and the errors if it does not."""

import json

import pytest
import torch
from exact_jobs import Mlp, Points, Sentences
from torch.utils.data import default_collate

from distrib.job.reader import Job
from distrib.train.objective.task import Task, TaskError
from distrib.train.resolved_job import ResolvedJob

CPU = torch.device("cpu")
BATCH = default_collate([Points(4)[index] for index in range(4)])


@pytest.fixture
def make(tmp_path):
    """`make(loss=…)` or `make(step=…)`: the task of a job with that."""

    def make(model="exact_jobs:Mlp", **fields):
        spec = {
            "name": "job",
            "model": model,
            "data": {"train": {"target": "exact_jobs:Points", "args": {"num_samples": 47}}, "batch_size": 9},
            "optimizer": "torch.optim:SGD",
            "train": {"epochs": 2, "seed": 7},
            **fields,
        }
        (tmp_path / "job.yaml").write_text(json.dumps(spec))
        return Task(ResolvedJob.resolve(Job.load(tmp_path / "job.yaml")), CPU)

    return make


def test_the_seed_makes_the_first_weights(make):
    model = make(loss="torch.nn:CrossEntropyLoss").model
    torch.manual_seed(7)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), Mlp().parameters(), strict=True))


def test_a_loss_class_and_a_function_are_the_same(make):
    smoothing = {"label_smoothing": 0.1}
    of_class = make(loss={"target": "torch.nn:CrossEntropyLoss", "args": smoothing})
    of_function = make(loss={"target": "torch.nn.functional:cross_entropy", "args": smoothing})
    first, second = of_class.run(of_class.model, BATCH), of_function.run(of_function.model, BATCH)
    assert torch.equal(first.loss, second.loss)
    assert first.weight is None
    assert torch.equal(first.outputs, of_class.model(BATCH[0]))
    assert first.targets is BATCH[1]


def test_a_step_gives_loss_weight_outputs_and_targets(make):
    task = make(step="exact_jobs:token_mean")
    outcome = task.run(task.model, default_collate([Sentences(2)[0], Sentences(2)[1]]))
    assert (outcome.loss.shape, outcome.weight) == (torch.Size([]), 5)
    assert outcome.outputs.shape == (8, 3)


def test_inputs_by_name_are_passed_by_name(make):
    task = make(loss="torch.nn:CrossEntropyLoss")
    inputs, targets = BATCH
    by_name = task.run(task.model, ({"inputs": inputs}, targets))
    assert torch.equal(by_name.loss, task.run(task.model, BATCH).loss)


@pytest.mark.parametrize(
    ("fields", "batch", "message"),
    [
        ({"loss": "torch.nn:CrossEntropyLoss"}, {"inputs": 1}, r"loss: needs batches of \(inputs, targets\).* a dict"),
        ({"loss": "torch.nn:CrossEntropyLoss"}, (1, 2, 3), r"a tuple of 3; use step:"),
        (
            {"loss": {"target": "torch.nn:CrossEntropyLoss", "args": {"reduction": "none"}}},
            BATCH,
            r"loss: must give a scalar tensor.* shape \(4,\)",
        ),
        (
            {"loss": "torch.nn:CrossEntropyLoss"},
            (BATCH[0], ["cat"] * 4),
            r"loss: torch.nn:CrossEntropyLoss needs a tensor, but the targets of a batch are text",
        ),
        ({"step": "exact_jobs:no_tensor"}, BATCH, r"step: must give a scalar tensor, the mean loss, but gave float"),
        ({"step": "exact_jobs:no_loss"}, BATCH, r"step: the dict that it returns has no 'loss'"),
    ],
    ids=["a dict", "three parts", "no mean", "text as targets", "no tensor", "no loss"],
)
def test_what_cannot_be_a_loss_is_refused(make, fields, batch, message):
    task = make(**fields)
    with pytest.raises(TaskError, match=message):
        task.run(task.model, batch)


def test_a_factory_that_gives_no_model_is_refused(make):
    with pytest.raises(TaskError, match=r"model: builtins:str gave a str, not a torch\.nn\.Module"):
        make(model="builtins:str", loss="torch.nn:CrossEntropyLoss")
