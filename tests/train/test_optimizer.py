"""The optimizer that the spec describes, and the learning rate in the events."""

import copy
import json
import sys

import pytest
import torch
from exact_jobs import Mlp

from distrib.job.reader import Job
from distrib.job.step_plan import Facts, make_step_plan
from distrib.train.optimization.optimizer import OptimizerError, build_optimizers
from distrib.train.resolved_job import ResolvedJob

SPEC = {
    "name": "job",
    "model": "exact_jobs:Mlp",
    "data": {"train": {"target": "exact_jobs:Points", "args": {"num_samples": 47}}, "batch_size": 9},
    "loss": "torch.nn:CrossEntropyLoss",
    "train": {"epochs": 2},
}


@pytest.fixture
def build(tmp_path, monkeypatch):
    """`build(optimizer, model)`: the optimizer of a job that names it so."""
    monkeypatch.setitem(sys.modules, "test_optimizer", sys.modules[__name__])

    def build(optimizer, model):
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps({**SPEC, "optimizer": optimizer}))
        job = Job.load(path)
        optimizers = build_optimizers(ResolvedJob.resolve(job), make_step_plan(job.spec, Facts(47), 2), model)
        return optimizers["optimizer"]

    return build


@pytest.mark.parametrize(("name", "is_fused"), [("AdamW", True), ("Adam", True), ("SGD", False), ("Adagrad", False)])
def test_an_optimizer_is_fused_unasked_only_where_that_is_exact(build, name, is_fused):
    assert bool(build({"target": f"torch.optim:{name}", "args": {"lr": 0.1}}, Mlp()).defaults["fused"]) == is_fused


class _Conv(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.late = torch.nn.Parameter(torch.ones(5))


STEPS = 6
TORCH_OPTIMIZERS = {"AdamW": {}, "Adam": {"amsgrad": True}, "SGD": {"momentum": 0.9}, "Adagrad": {}, "NAdam": {}}


def trained(optimizer, model, is_late=False, has_overflow=False):
    """The weights after some updates by made-up gradients, in the layouts that autograd gives them."""
    generator = torch.Generator().manual_seed(1)
    scaler = torch.amp.GradScaler("cpu", enabled=has_overflow, init_scale=4.0)
    for step in range(STEPS):
        for name, parameter in model.named_parameters():
            gradient = torch.randn(parameter.shape, generator=generator) * scaler.get_scale()
            if has_overflow and step == 0:
                gradient.fill_(float("inf"))
            is_absent = is_late and name == "late" and step < STEPS // 2
            parameter.grad = None if is_absent else torch.empty_like(parameter).copy_(gradient)
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        scaler.update()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", [{}, {"is_late": True}, {"has_overflow": True}], ids=["plain", "late", "overflow"])
def test_what_is_built_computes_what_the_plain_loop_does(build, name, memory_format, case):
    torch.manual_seed(0)
    model = _Conv().to(memory_format=memory_format)
    plain = copy.deepcopy(model)
    args = {"lr": 0.1, **TORCH_OPTIMIZERS[name]}
    built = build({"target": f"torch.optim:{name}", "args": args}, model)
    reference = getattr(torch.optim, name)(plain.parameters(), foreach=False, **args)
    for ours, expected in zip(trained(built, model, **case), trained(reference, plain, **case), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_a_parameter_with_gaps_in_its_memory_is_never_fused(build):
    model = torch.nn.Module()
    model.part = torch.nn.Parameter(torch.zeros(4, 6)[:, :3])
    assert not build("torch.optim:AdamW", model).defaults["fused"]
    assert build("torch.optim:AdamW", Mlp().to(memory_format=torch.channels_last)).defaults["fused"]


@pytest.mark.parametrize("choice", [{"fused": False}, {"foreach": True}, {"foreach": False}, {"differentiable": True}])
def test_the_choice_of_the_user_is_kept(build, choice):
    defaults = build({"target": "torch.optim:AdamW", "args": choice}, Mlp()).defaults
    assert not defaults["fused"]
    assert {name: defaults[name] for name in choice} == choice


def test_what_cannot_be_fused_is_not(build):
    assert "fused" not in build("torch.optim:RMSprop", Mlp()).defaults
    assert not build("torch.optim:AdamW", Mlp().to("meta")).defaults["fused"]


def test_an_optimizer_class_gets_the_parameters_with_their_names(build):
    model = Mlp()
    (group,) = build("torch.optim:SGD", model).param_groups
    assert group["param_names"] == [name for name, _ in model.named_parameters()]


class ByDimension(torch.optim.SGD):
    """Sorts matrices from the rest; with `is_strict`, takes nothing but tensors."""

    def __init__(self, params, lr=0.1, is_strict=False):
        params = list(params)
        if is_strict:
            assert all(isinstance(each, torch.Tensor) for each in params)
        sorted_ = ([p for p in params if (getattr(p, "ndim", 0) > 1) == is_matrix] for is_matrix in (False, True))
        super().__init__([{"params": group} for group in sorted_ if group], lr=lr)


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_class_that_sorts_tensors_gets_tensors(build, is_strict):
    args = {"is_strict": is_strict}
    optimizer = build({"target": "test_optimizer:ByDimension", "args": args}, Mlp())
    dimensions = [{p.ndim for p in group["params"]} for group in optimizer.param_groups]
    assert dimensions == [{1}, {2}]


def test_a_factory_gets_the_model_and_the_numbers_of_the_plan(build, tmp_path):
    model = Mlp()
    args = {"folder": str(tmp_path), "num_steps": "$steps", "lr": 0.5}
    optimizer = build({"target": "exact_jobs:recording", "args": args}, model)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert not optimizer.defaults["fused"]


def test_a_factory_that_gives_no_optimizer_is_refused(build):
    with pytest.raises(OptimizerError, match=r"builtins:str gave a str, not a torch\.optim\.Optimizer"):
        build("builtins:str", Mlp())


def reference(scheduler, lr):
    """A schedule by itself: its optimizer and itself."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)
    return optimizer, scheduler(optimizer)


def rates(run):
    events = run.events("train")
    assert [event["step"] for event in events] == list(range(1, len(events) + 1))
    return [event["lr"] for event in events]


@pytest.mark.timeout(120)
@pytest.mark.runs("clipped")
def test_a_schedule_by_steps(run):
    optimizer, schedule = reference(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=12), lr=0.1)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(run) == pytest.approx(expected, rel=1e-12)
    assert [step["lr"] for step in run.record()["steps"]] == rates(run)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.timeout(120)
@pytest.mark.runs("bf16")
def test_a_schedule_by_epochs(run):
    expected = [0.05 * 0.1 ** (epoch // 2) for epoch in range(10) for _ in range(4)]
    assert rates(run) == pytest.approx(expected, rel=1e-12)


@pytest.mark.timeout(120)
@pytest.mark.runs("normalized")
def test_a_schedule_by_an_evaluation_metric(run):
    optimizer, schedule = reference(
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, mode="max", factor=0.5, patience=0), lr=0.1
    )
    expected = []
    for event in run.events("eval"):
        expected += [optimizer.param_groups[0]["lr"]] * 6
        schedule.step(event["accuracy"])
    assert rates(run) == expected
    assert expected[-1] < expected[0]
