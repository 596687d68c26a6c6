"""Points in time on a rank's device."""

from __future__ import annotations

import time
from typing import Any

import torch


class Clock:
    """Points in time on a device; on CUDA, those at which the work before them is done, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.has_events = device.type == "cuda"

    def mark(self) -> Any:
        """Now."""
        if not self.has_events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """The seconds between two marks, once their work is done."""
        if not self.has_events:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def wait(self) -> None:
        """Waits until all work is done."""
        if self.has_events:
            torch.cuda.synchronize(self._device)
