"""A Ray Train backend that leaves the process group to the rank, which makes the same one under every launcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.backend import Backend
from ray.train.torch import TorchConfig


class _NoBackend(Backend):
    """Sets up and tears down nothing."""

    share_cuda_visible_devices = False

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Nothing: the ranks meet at a store of their own."""

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Nothing: a worker's end ends its connections."""


@dataclass
class OwnProcessGroup(TorchConfig):
    """Has Ray Train start plain workers."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that does nothing."""
        return _NoBackend
