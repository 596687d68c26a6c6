"""Precision: autocast around the forward pass, and the gradient scalers that fp16 needs."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch


@dataclass
class _Scaler:
    """A gradient scaler, and its scale when it was last looked at."""

    scaler: torch.amp.GradScaler
    last_scale: float


class Precision:
    """The forward pass of bf16 and fp16 runs under autocast, and fp16 scales its gradients; fp32 changes nothing."""

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        self._device = device
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.is_scaled = name == "fp16"
        self._scalers: dict[str, _Scaler] = {}
        self._restored: dict[str, Any] = {}

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The scaler of a step that updates all parameters at once."""
        return self.scaler_of("")

    def scaler_of(self, name: str) -> torch.amp.GradScaler:
        """The scaler of the updates called `name`; one that overflows does not lower the scales of others."""
        if name not in self._scalers:
            scaler = torch.amp.GradScaler(self._device.type, enabled=self.is_scaled)
            if self.is_scaled and name in self._restored:
                scaler.load_state_dict(self._restored.pop(name))
            self._scalers[name] = _Scaler(scaler, scaler.get_scale())
        return self._scalers[name].scaler

    def autocast(self, *, enabled: bool = True) -> AbstractContextManager[object]:
        """The context of a forward pass and its loss; or, within it, one of full precision."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device.type, self._dtype, enabled=enabled)

    def state_dict(self) -> dict[str, Any]:
        """The state of each scaler by name; empty without any."""
        own = {name: each.scaler.state_dict() for name, each in self._scalers.items()} if self.is_scaled else {}
        return {**self._restored, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; a scaler takes its state when it is first used."""
        self._scalers.clear()
        self._restored = dict(state) if self.is_scaled else {}

    def skipped_updates(self) -> int:
        """How many updates, at least, the scalers have skipped since the last call; under fp16 waits for the device."""
        if not self.is_scaled:
            return 0
        skipped = 0
        for each in self._scalers.values():
            scale, last = each.scaler.get_scale(), each.last_scale
            each.last_scale = scale
            if scale < last:
                skipped += round(math.log(last / scale) / -math.log(each.scaler.get_backoff_factor()))
        return skipped
