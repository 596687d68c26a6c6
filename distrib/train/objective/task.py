"""The task: the model, how a batch becomes a loss, and the metrics."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distrib.errors import DistribError
from distrib.job.fields import nearest
from distrib.job.spec.job import JobSpec
from distrib.job.spec.targets import Target
from distrib.train.data.batches import tensors_in
from distrib.train.objective.loss_errors import refusal
from distrib.train.objective.loss_weights import LossForm, loss_form
from distrib.train.process.randomness import reseed
from distrib.train.resolved_job import ResolvedJob
from distrib.train.session.mentions import mentions, takes_session

_STEP_KEYS = ("loss", "weight", "outputs", "targets", "log")
_MAX_NAMES = 3


class TaskError(DistribError):
    """The user's model, loss or step gave something that training cannot use."""


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass gave.

    Attributes:
        loss: A scalar tensor: the mean over what `weight` counts.
        weight: What the loss is a mean over, as a number or scalar tensor; None if the job does not say.
        outputs: What metrics read as predictions.
        targets: What metrics compare them with.
        count: Computes what a known loss is a mean over; None if that is the samples.
        has_ignored: Whether a known loss ignores some of the targets; not looked at where these are counted.
        num_rows: The first dimension that all tensors of the batch share, or the number of targets that a known loss
            may count; None if there is no such number, or if it does not matter.
        logged: Values to log, by name, as means over the samples.
    """

    loss: torch.Tensor
    weight: torch.Tensor | float | None
    outputs: Any = None
    targets: Any = None
    count: Callable[[], torch.Tensor] | None = None
    has_ignored: bool = False
    num_rows: int | None = None
    logged: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Task:
    """The unwrapped model on its device, the loss or step, and the metrics.

    Attributes:
        model: The model.
        loss: The loss, if the job has one.
        form: What is known of the loss.
        metrics: By name.
        notices: What the job's user should know of how the model came.
        takes_session: Whether the step has a parameter `session`.
        drives: Whether the step updates parameters itself, with `session.minimize`.
        may_stop: Whether the step calls `session.stop`.
    """

    def __init__(self, resolved: ResolvedJob, device: torch.device) -> None:
        spec = resolved.job.spec
        self.model: nn.Module = build_model(spec, resolved.model).to(device)
        self.notices = use_train_mode(self.model)
        self.loss: Callable[..., Any] | None = None
        self.loss_name = next(each.target for each in (spec.loss, spec.step) if each is not None)
        self._step = None
        if resolved.loss is not None and spec.loss is not None:
            self.loss = _build_loss(resolved.loss, spec.loss.args, device)
        if resolved.step is not None and spec.step is not None:
            self._step = functools.partial(resolved.step, **spec.step.args)
        self.form = LossForm() if self.loss is None else loss_form(self.loss)
        if spec.loss is not None and "ignore_index" in spec.loss.args:
            self.form = dataclasses.replace(self.form, is_explicit=True)
        self._collate_weight: Callable[[Any], Any] | None = getattr(resolved.bound_collate(), "weight", None)
        self.takes_session = resolved.step is not None and takes_session(resolved.step)
        self.drives = self.takes_session and mentions(resolved.step, "minimize")
        self.may_stop = self.takes_session and mentions(resolved.step, "stop")
        self.metrics: dict[str, Any] = {
            name: build_metric(metric, spec.metrics[name], name).to(device) for name, metric in resolved.metrics.items()
        }

    @property
    def loss_module(self) -> nn.Module | None:
        """The loss if it is a module."""
        return self.loss if isinstance(self.loss, nn.Module) else None

    def copy(self) -> Task:
        """A task with copies of the model, the loss and the metrics."""
        other = copy.copy(self)
        other.model, other.loss, other.metrics = copy.deepcopy((self.model, self.loss, self.metrics))
        return other

    def bind(self, session: object) -> None:
        """Passes `session` to the step from now on."""
        assert self._step is not None
        self._step = functools.partial(self._step, session=session)

    def call_step(self, model: nn.Module, batch: Any) -> Any:
        """What the job's step returns."""
        assert self._step is not None
        return self._step(model, batch)

    def run(
        self, model: nn.Module, batch: Any, loss: Callable[..., Any] | None = None, *, counts_targets: bool = True
    ) -> StepOutput:
        """Runs `batch` through `model`.

        Args:
            model: The model, wrapped or not.
            batch: The batch.
            loss: The wrapped loss; by default the loss itself.
            counts_targets: Whether a known loss's weight is wanted; otherwise it is only looked for ignored targets.

        Raises:
            TaskError: The batch or the result has not the form that the spec's `loss` or `step` promises.
        """
        output = self._run_step(model, batch) if self._step else self._run_loss(model, batch, loss, counts_targets)
        if output.weight is None and self._collate_weight is not None:
            return dataclasses.replace(output, weight=self._collate_weight(batch), count=None)
        return output

    def _run_step(self, model: nn.Module, batch: Any) -> StepOutput:
        assert self._step is not None
        return dataclasses.replace(read_step(self._step(model, batch)), num_rows=_num_rows(batch))

    def _run_loss(
        self, model: nn.Module, batch: Any, loss: Callable[..., Any] | None, counts_targets: bool
    ) -> StepOutput:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TaskError(
                f"loss: needs batches of (inputs, targets), but the dataset gives {_form(batch)}; "
                "use step: to say how such a batch becomes a loss"
            )
        inputs, targets = batch
        outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
        assert self.loss is not None
        value = _scalar(self._call_loss(self.loss if loss is None else loss, outputs, targets), "loss")
        form = self.form
        if form.count is None or not isinstance(outputs, torch.Tensor):
            num_rows = None if form.is_sum else _num_rows(batch)
            return StepOutput(value, None, outputs, targets, num_rows=num_rows)
        count = functools.partial(form.count, outputs.detach(), targets)
        if counts_targets:
            _silence_without_weight(outputs, count)
        return StepOutput(
            value,
            None,
            outputs,
            targets,
            count=count,
            has_ignored=not counts_targets and form.has_ignored(targets),
            num_rows=_num_targets(targets) if isinstance(targets, torch.Tensor) else None,
        )

    def _call_loss(self, loss: Callable[..., Any], outputs: Any, targets: Any) -> Any:
        try:
            return loss(outputs, targets)
        except Exception as error:
            if (problem := refusal(error, self.loss_name, outputs, targets)) is None:
                raise
            raise TaskError(f"loss: {problem}") from error


def _num_targets(targets: torch.Tensor) -> int:
    """How many targets there are: one for each class index, or for the probabilities of all classes."""
    is_of_indices = not targets.is_floating_point() or targets.ndim < 2
    return targets.numel() if is_of_indices else targets.numel() // targets.shape[1]


def _silence_without_weight(outputs: torch.Tensor, count: Callable[[], torch.Tensor]) -> None:
    """Makes gradients zero where no target counts, which are those of 0/0; without waiting for the device."""
    if outputs.requires_grad and outputs.device.type == "cuda":
        weight = count()
        outputs.register_hook(lambda gradient: torch.where(weight > 0, gradient, 0.0))  # type: ignore[no-untyped-call]


def build_metric(factory: Callable[..., Any], target: Target, name: str) -> nn.Module:
    """A metric of torchmetrics, which merges its states over the ranks.

    Raises:
        TaskError: It is no such metric.
    """
    metric = factory(**target.args)
    if not isinstance(metric, nn.Module) or not callable(getattr(metric, "update", None)):
        raise TaskError(
            f"metrics.{name}: {target.target} gave a {type(metric).__name__}; a torchmetrics.Metric is needed, whose "
            "states (add_state) can be merged over the ranks"
        )
    return metric


def _build_loss(factory: Callable[..., Any], args: Mapping[str, Any], device: torch.device) -> Callable[..., Any]:
    """The loss: an instance on the device, or a function with its arguments bound."""
    if not isinstance(factory, type):
        return functools.partial(factory, **args)
    loss: Callable[..., Any] = factory(**args)
    return loss.to(device) if isinstance(loss, nn.Module) else loss


def build_model(spec: JobSpec, factory: Callable[..., Any]) -> nn.Module:
    """The job's model as its own code makes it, on CPU; the same weights in every process.

    Raises:
        TaskError: It is no module, or is spread over devices already.
    """
    reseed(spec.train.seed)
    model = factory(**spec.model.args)
    if not isinstance(model, nn.Module):
        raise TaskError(f"model: {spec.model.target} gave a {type(model).__name__}, not a torch.nn.Module")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise TaskError(
            f"model: {spec.model.target} gave a {type(model).__name__}; return the model in it, which the ranks "
            "share here"
        )
    return model


def use_train_mode(model: nn.Module) -> list[str]:
    """Puts a model that arrives in evaluation mode into training mode; what to report of it.

    Parts that are in evaluation mode while the whole is not have been frozen on purpose, and stay so.
    """
    if not model.training:
        model.train()
        return ["model: it came in evaluation mode, as pretrained models do, and was put into training mode"]
    parts = [name for name, part in model.named_modules() if not part.training]
    tops = [name for name in parts if name.rpartition(".")[0] not in parts]
    if not tops:
        return []
    more = f" and {len(tops) - _MAX_NAMES} more" if len(tops) > _MAX_NAMES else ""
    return [f"model: parts came in evaluation mode and stay in it: {', '.join(tops[:_MAX_NAMES])}{more}"]


def _num_rows(batch: Any) -> int | None:
    """The first dimension that all tensors of a batch share."""
    sizes = {tensor.shape[0] if tensor.ndim else None for tensor in tensors_in(batch)}
    return sizes.pop() if len(sizes) == 1 else None


def _form(batch: Any) -> str:
    return (
        f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
    )


def _scalar(value: Any, source: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        form = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TaskError(
            f"{source}: must give a scalar tensor, the mean loss, but gave {form}; {_advice(value, source)}"
        )
    return value.reshape(())


def _advice(value: Any, source: str) -> str:
    """What to give instead of what is no loss."""
    if isinstance(value, torch.Tensor):
        return "reduce it to its mean"
    if value is None:
        return "return the loss"
    if isinstance(value, int | float):
        return "return the tensor that it came from, without item()"
    more = ', or {"loss": …, "outputs": …, "targets": …}' if source == "step" else ""
    return f"return the loss alone{more}"


def check_keys(result: Mapping[Any, Any]) -> None:
    """Refuses keys that nothing reads in what a step returned."""
    for key in result:
        if key not in _STEP_KEYS:
            match = nearest(str(key), _STEP_KEYS)
            advice = f"it may have {', '.join(_STEP_KEYS)}; other values are logged as 'log': {{name: value}}"
            if match:
                advice = f"did you mean '{match}'?"
            raise TaskError(f"step: the dict that it returns has an unknown key '{key}'; {advice}")


def read_step(result: Any) -> StepOutput:
    """What a step returned as its output.

    Raises:
        TaskError: It has not the form that the spec's `step` promises.
    """
    if not isinstance(result, Mapping):
        return StepOutput(_scalar(result, "step"), None)
    if "loss" not in result:
        raise TaskError(f"step: the dict that it returns has no 'loss'; its keys are {', '.join(map(str, result))}")
    check_keys(result)
    weight = result.get("weight")
    if isinstance(weight, torch.Tensor):
        weight = weight.detach().reshape(())
    return StepOutput(
        _scalar(result["loss"], "step"),
        weight,
        result.get("outputs"),
        result.get("targets"),
        logged=read_logged(result),
    )


def read_logged(result: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The values that a step's dict has under `log`, by name.

    Raises:
        TaskError: It is no dict with names.
    """
    logged = result.get("log")
    if logged is None:
        return {}
    if not isinstance(logged, Mapping) or not all(isinstance(name, str) for name in logged):
        raise TaskError(f"step: 'log' is a dict of numbers and scalar tensors by name, not a {type(logged).__name__}")
    return logged
