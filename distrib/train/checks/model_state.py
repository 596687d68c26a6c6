"""Whether checkpoints and files of weights can hold a model, found before it is wrapped."""

from __future__ import annotations

import torch
from safetensors.torch import save
from torch import nn

from distrib.train.checkpoint.extra_state import ModelStateError, check_model_state, extra_states, is_expanded
from distrib.train.checkpoint.plain_state import dump_state
from distrib.train.checkpoint.tensors import split_tensors


def check_state(model: nn.Module, loss: nn.Module | None) -> None:
    """Refuses a model that files of weights cannot hold.

    Raises:
        ModelStateError: The model has something that is neither parameter, buffer nor extra state, or tensors that
            files of weights do not know or that nothing can be read into.
        StateError: Its extra state cannot be saved.
    """
    for module in [model] if loss is None else [model, loss]:
        check_model_state(module)
        found = {f"{name or 'the model'}.get_extra_state()": extra for name, extra in extra_states(module).items()}
        dump_state(split_tensors(found)[0])
    tensors = {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if isinstance(tensor, torch.Tensor)
    }  # fmt: skip
    kinds = {(tensor.dtype, tensor.layout): name for name, tensor in tensors.items()}
    for (dtype, layout), name in kinds.items():
        try:
            save({"tensor": torch.empty(1, dtype=dtype, layout=layout)})
        except Exception as error:
            raise ModelStateError(
                f"model: {name} is a tensor of type {dtype} and layout {layout}, which a file of weights cannot hold"
            ) from error
    for name, tensor in tensors.items():
        if is_expanded(tensor):
            raise ModelStateError(
                f"model: {name} is expanded, so several of its elements are one in memory and no checkpoint can be "
                "read into it; clone it, or register the buffer with persistent=False"
            )
