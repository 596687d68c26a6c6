"""Precision: autocast around the forward pass, and the gradient scaler that fp16 needs."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch


class Precision:
    """The forward pass of bf16 and fp16 runs under autocast, and fp16 scales its gradients; fp32 changes nothing."""

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        self._device = device
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        self._last_scale = self.scaler.get_scale()

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass and its loss."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device.type, self._dtype)

    def state_dict(self) -> dict[str, Any]:
        """The gradient scaler's state; empty without one."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        if self.scaler.is_enabled() and state:
            self.scaler.load_state_dict(state)
            self._last_scale = self.scaler.get_scale()

    def skipped_updates(self) -> int:
        """How many updates, at least, the scaler has skipped since the last call; under fp16 waits for the device."""
        if not self.scaler.is_enabled():
            return 0
        scale, last = self.scaler.get_scale(), self._last_scale
        self._last_scale = scale
        if scale >= last:
            return 0
        return round(math.log(last / scale) / -math.log(self.scaler.get_backoff_factor()))
