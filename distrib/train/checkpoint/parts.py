"""How models, optimizers and other objects give their state to a checkpoint and take it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from distrib.errors import DistribError
from distrib.train.strategy.base import Strategy

MODEL, OPTIMIZER = "model", "optimizer"
"""The names of a job's model and of its only optimizer."""


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
    """The parameters and persistent buffers of an unwrapped model by name, and which parameters require gradients.

    Tied parameters are saved once. Tensors are restored in place.
    """

    keeps_small = False

    def __init__(self, name: str, model: nn.Module) -> None:
        self._name = name
        self._model = model

    def tensors(self) -> dict[str, torch.Tensor]:
        """The model's own parameters and persistent buffers."""
        persistent = set(self._model.state_dict(keep_vars=True))
        buffers = {name: buffer for name, buffer in self._model.named_buffers() if name in persistent}
        return {name: tensor.detach() for name, tensor in {**dict(self._model.named_parameters()), **buffers}.items()}

    def state_dict(self) -> dict[str, Any]:
        """The tensors, and the names of the parameters that require gradients."""
        return {**self.tensors(), TRAINABLE: trainable_names(self._model)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what is not a tensor; those were read in place."""
        missing = self.tensors().keys() - state.keys()
        if missing:
            raise RestoreError(f"the checkpoint has no value for {self._name}.{min(missing)}; has the model changed?")
        set_trainable(self._model, state[TRAINABLE])

    def target(self, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """The model's own tensor.

        Raises:
            RestoreError: The model has none of that name and shape.
        """
        tensor = self.tensors().get(name)
        if tensor is None or tensor.shape != shape:
            found = "none" if tensor is None else f"shape {tuple(tensor.shape)}"
            raise RestoreError(
                f"the checkpoint has {self._name}.{name} with shape {tuple(shape)}, the job's model has {found}"
            )
        return tensor


TRAINABLE = "#trainable"
"""Among the names of a model's tensors, of which none begins with `#`: which parameters require gradients."""


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
