"""Copies of tensors in CPU memory, which training may not change while they are written."""

from __future__ import annotations

import torch

from distrib.train.checkpoint.tensors import Tensors

_Layout = tuple[torch.dtype, torch.Size, tuple[int, ...], str]


class StagingBuffers:
    """Buffers that are allocated once and used by every save; pinned ones for tensors on a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[str, tuple[_Layout, torch.Tensor]] = {}

    def copy(self, tensors: Tensors) -> Tensors:
        """Copies tensors into the buffers of their names; returns once the copies are complete."""
        self._buffers = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        copies = {name: buffer for name, (_, buffer) in self._buffers.items()}
        with torch.no_grad():
            for name, tensor in tensors.items():
                copies[name].copy_(tensor, non_blocking=True)
        for device in {tensor.device for tensor in tensors.values() if tensor.device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        return copies

    def _buffer(self, name: str, tensor: torch.Tensor) -> tuple[_Layout, torch.Tensor]:
        """The buffer of a tensor; a new one if the tensor's layout has changed."""
        layout = (tensor.dtype, tensor.shape, tensor.stride(), tensor.device.type)
        if name in self._buffers and self._buffers[name][0] == layout:
            return self._buffers[name]
        return layout, torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type == "cuda")
