"""What modules keep beside parameters and buffers: the extra state that `get_extra_state` returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distrib.errors import DistribError


class ModelStateError(DistribError):
    """A model's state dict has something that is neither a parameter, a buffer nor extra state."""


def extra_states(model: nn.Module) -> dict[str, Any]:
    """The extra state of each module that has one, by the module's name; that of the model itself has the name ''."""
    return {name: part.get_extra_state() for name, part in model.named_modules() if has_extra_state(part)}


def set_extra_states(model: nn.Module, states: dict[str, Any]) -> None:
    """Gives modules back what `extra_states` returned."""
    for name, part in model.named_modules():
        if name in states and has_extra_state(part):
            part.set_extra_state(states[name])


def has_extra_state(module: nn.Module) -> bool:
    """Whether a module, its parts left out, has extra state."""
    return type(module).get_extra_state is not nn.Module.get_extra_state


def is_expanded(tensor: torch.Tensor) -> bool:
    """Whether several elements of a tensor are one in memory, so that nothing can be read into it."""
    if tensor.layout != torch.strided:
        return False
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def check_model_state(model: nn.Module) -> None:
    """Refuses a model whose state checkpoints and weights would not contain completely.

    Raises:
        ModelStateError: Its state dict has more than parameters, buffers and extra state.
    """
    known = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    for name, value in model.state_dict(keep_vars=True).items():
        if name.endswith("_extra_state") or id(value) in known:
            continue
        kind = "a tensor that is not a parameter or buffer" if isinstance(value, torch.Tensor) else type(value).__name__
        raise ModelStateError(
            f"model: its state dict has '{name}' ({kind}), which checkpoints and weights cannot hold, as of quantized "
            "modules; register it as a buffer, or return it from get_extra_state"
        )
