"""Runs the service: warm-up, readiness and graceful shutdown."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from distrib.compat.uvicorn_http import protocol_with_deadline
from distrib.errors import LaunchError
from distrib.inference.predictor import Predictor, choose_device
from distrib.inference.serving.service import ServiceOptions, make_app
from distrib.inference.signature import InputSignature
from distrib.inference.trained_model import TrainedModel
from distrib.train.process.device import use_threads

_SWITCH_SECONDS = 0.001
"""Python's thread switch interval; the default of 5 ms would add up over a model's operators."""
_MAX_DRAIN_SECONDS = 30


@dataclass(frozen=True)
class ServeOptions:
    """Options of the server.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        num_threads: Torch threads on the CPU.
        service: Options of the service.
    """

    device: str = "auto"
    num_threads: int = 1
    service: ServiceOptions = field(default_factory=ServiceOptions)


def serve(
    trained: TrainedModel, listener: socket.socket, options: ServeOptions, announce: Callable[[str, str], None]
) -> None:
    """Serves until a signal ends it; requests in progress are completed.

    Args:
        trained: The model.
        listener: The bound socket.
        options: How to serve.
        announce: Called with the URL and the device once the service is ready.
    """
    signature = InputSignature.of(trained.signature)
    use_threads(options.num_threads)
    device = choose_device(options.device)
    predictor = Predictor(trained.build(), device, trained.job.spec.train.precision, trained.predict())
    _warm_up(predictor, signature, options.service.batching.max_batch)
    sys.setswitchinterval(_SWITCH_SECONDS)
    info = {"run": trained.run_id, "weights": trained.weights.label, "device": str(device)}
    config = uvicorn.Config(
        make_app(predictor, signature, info, options.service),
        http=protocol_with_deadline(options.service.client_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_MAX_DRAIN_SECONDS,
    )
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(config, lambda: announce(url, str(device)))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn re-raises the signal that ended it
        server.run(sockets=[listener])
    if not server.started:
        raise LaunchError("the service could not be started; see stderr for the reason")


class _Server(uvicorn.Server):
    """A server that announces when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening and announces it."""
        await super().startup(sockets)
        if self.started:
            self._announce()


def _warm_up(predictor: Predictor, signature: InputSignature, max_batch: int) -> None:
    """Runs synthetic inputs once, so that the first request does not pay for initialization."""
    for num_rows in {1, max_batch}:
        try:
            predictor(signature.example(num_rows), num_rows)
        except Exception as error:
            reason: Any = f"{type(error).__name__}: {error}"
            print(f"the model fails on synthetic inputs of {num_rows} rows ({reason}); serving anyway",
                  file=sys.stderr)  # fmt: skip
