"""How models, optimizers and other objects give their state to a checkpoint and take it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from distrib.errors import DistribError
from distrib.train.checkpoint.buffers import buffer_forms, make_buffer
from distrib.train.checkpoint.extra_state import extra_states, set_extra_states
from distrib.train.strategy.base import Strategy

MODEL, LOSS, OPTIMIZER = "model", "loss", "optimizer"
"""The names of a job's model, of a loss that is a module, and of its only optimizer."""


class RestoreError(DistribError):
    """A checkpoint does not fit what the job's code has built."""


class Stateful(Protocol):
    """An object whose state is nested dicts, lists and tuples of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]:
        """The state; tensors in it may be the object's own."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restores what `state_dict` returned."""


class Part(Stateful, Protocol):
    """A stateful object that chooses the tensors into which its saved ones are read.

    Attributes:
        keeps_small: Whether tensors of at most one element are saved with the plain values.
    """

    keeps_small: bool

    def target(self, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """The tensor to read into; `load_state_dict` gets it at the saved one's place."""


def as_part(name: str, value: Any, strategy: Strategy) -> Part:
    """The part of a checkpoint that `value` makes up."""
    if isinstance(value, nn.Module):
        return ModelPart(name, value)
    if isinstance(value, torch.optim.Optimizer):
        return OptimizerPart(value, strategy)
    return OtherPart(value)


class OtherPart:
    """Any stateful object; its tensors are read on the CPU."""

    keeps_small = True

    def __init__(self, value: Stateful) -> None:
        self._value = value

    def state_dict(self) -> dict[str, Any]:
        """The object's."""
        return self._value.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the object."""
        self._value.load_state_dict(state)

    def target(self, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """An empty tensor."""
        return torch.empty(shape, dtype=dtype)


class ModelPart:
    """The state of an unwrapped model: parameters and persistent buffers by name, and what else belongs to it.

    That is which parameters require gradients, how tensors are laid out, and the extra state of modules. Tied
    parameters are saved once. Tensors are restored in place.
    """

    keeps_small = False

    def __init__(self, name: str, model: nn.Module) -> None:
        self._name = name
        self._model = model
        self._made: list[str] = []

    def tensors(self) -> dict[str, torch.Tensor]:
        """The model's own parameters and persistent buffers."""
        persistent = set(self._model.state_dict(keep_vars=True))
        buffers = {name: buffer for name, buffer in self._model.named_buffers() if name in persistent}
        return {name: tensor.detach() for name, tensor in {**dict(self._model.named_parameters()), **buffers}.items()}

    def state_dict(self) -> dict[str, Any]:
        """The tensors by name, and the rest under names that begin with `#`."""
        tensors, extra = self.tensors(), extra_states(self._model)
        state = {**tensors, TRAINABLE: trainable_names(self._model), LAYOUT: layout_of(tensors)}
        state[BUFFERS] = [form.name for form in buffer_forms(self._model) if form.is_persistent]
        return {**state, EXTRA: extra} if extra else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what is not a tensor; those were read in place."""
        missing = self.tensors().keys() - state.keys()
        if missing:
            raise RestoreError(f"the checkpoint has no value for {self._name}.{min(missing)}; has the model changed?")
        for name in self._made:
            if name not in state[BUFFERS]:
                raise self._lacks(name, state[name].shape, None)
        set_trainable(self._model, state[TRAINABLE])
        set_extra_states(self._model, state.get(EXTRA, {}))

    def target(self, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """The model's own tensor; an empty one for what is part of extra state, or for a buffer made in forward.

        Raises:
            RestoreError: The model has none of that name and shape.
        """
        if name.startswith(f"{EXTRA}/"):
            return torch.empty(shape, dtype=dtype)
        tensor = self.tensors().get(name)
        if tensor is not None and tensor.shape == shape:
            return tensor
        made = make_buffer(self._model, name, shape, dtype)
        if made is None:
            raise self._lacks(name, shape, tensor)
        self._made.append(name)
        return made

    def _lacks(self, name: str, shape: torch.Size, found: torch.Tensor | None) -> RestoreError:
        has = "none" if found is None else f"shape {tuple(found.shape)}"
        return RestoreError(
            f"the checkpoint has {self._name}.{name} with shape {tuple(shape)}, the job's model has {has}"
        )


TRAINABLE, LAYOUT, BUFFERS, EXTRA = "#trainable", "#layout", "#buffers", "#extra"
"""Among the names of a model's tensors, of which none begins with `#`: which parameters require gradients, the strides
of tensors that are not contiguous, which tensors are buffers, and the extra state of modules."""


class OptimizerPart:
    """An optimizer; state tensors of a parameter's shape are allocated as the parameter is laid out."""

    keeps_small = True

    def __init__(self, optimizer: torch.optim.Optimizer, strategy: Strategy) -> None:
        self._optimizer = optimizer
        self._strategy = strategy

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the optimizer with its own types: loading alone would convert them to the parameters'."""
        self._optimizer.load_state_dict(state)
        for number, parameter in enumerate(self._parameters()):
            kept = self._optimizer.state.get(parameter, {})
            for key, value in state["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor) and kept[key].dtype != value.dtype:
                    kept[key] = value.to(kept[key].device)

    def target(self, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """An empty tensor like the parameter that it belongs to."""
        kind, number, *_ = name.split("/")
        like = self._parameters()[int(number)].detach() if kind == "state" else None
        return self._strategy.allocate(shape, dtype, like)

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]


def layout_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """The strides of tensors that are not contiguous, by name."""
    return {name: list(tensor.stride()) for name, tensor in tensors.items() if not tensor.is_contiguous()}


def restore_layout(model: nn.Module, layout: Mapping[str, list[int]]) -> None:
    """Lays out the tensors of a model in memory as they were when `layout_of` looked at them, values kept.

    Kernels choose by the layout, and so does the rounding. Call it before the model is wrapped.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        strides = layout.get(name)
        is_as_before = tensor.is_contiguous() if strides is None else list(tensor.stride()) == strides
        if is_as_before or (strides is not None and len(strides) != tensor.ndim):
            continue
        contiguous = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta").stride()
        laid_out = torch.empty_strided(
            tensor.shape, strides or contiguous, dtype=tensor.dtype, device=tensor.device
        )  # fmt: skip
        tensor.data = laid_out.copy_(tensor.detach())


def trainable_names(model: nn.Module) -> list[str]:
    """The names of the parameters that require gradients."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def set_trainable(model: nn.Module, names: list[str]) -> None:
    """Makes the named parameters, and no others, require gradients."""
    trainable = set(names)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (name in trainable):
            parameter.requires_grad_(name in trainable)


@contextmanager
def trainable_as(model: nn.Module, names: list[str]) -> Iterator[None]:
    """For a while, makes the named parameters, and no others, require gradients."""
    before = trainable_names(model)
    set_trainable(model, names)
    try:
        yield
    finally:
        set_trainable(model, before)
