"""Serving the app: readiness, slow clients, and an orderly end."""

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
from distrib.inference.signature import InputForm
from distrib.inference.trained_model import TrainedModel
from distrib.train.device import use_threads

_SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter from another; Python's own 5 ms would add up over a model's operators."""
_MAX_DRAIN_SECONDS = 30


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        num_threads: Torch threads on the CPU.
        service: How the service behaves.
    """

    device: str = "auto"
    num_threads: int = 1
    service: ServiceOptions = field(default_factory=ServiceOptions)


def serve(
    trained: TrainedModel, bound: socket.socket, options: ServeOptions, announce: Callable[[str, str], None]
) -> None:
    """Serves until a signal ends it; what was begun by then is answered.

    Args:
        trained: The model.
        bound: Where to listen.
        options: How to serve.
        announce: Told the URL and the device once requests are answered.
    """
    form = InputForm.of(trained.signature)
    use_threads(options.num_threads)
    device = choose_device(options.device)
    forward = Predictor(trained.build(), device, trained.job.spec.train.precision, trained.predict())
    _warm_up(forward, form, options.service.batching.max_batch)
    sys.setswitchinterval(_SWITCH_SECONDS)
    about = {"run": trained.run_id, "weights": trained.weights.label, "device": str(device)}
    config = uvicorn.Config(
        make_app(forward, form, about, options.service),
        http=protocol_with_deadline(options.service.client_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_MAX_DRAIN_SECONDS,
    )
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(config, lambda: announce(url, str(device)))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands on the signal that ended it
        server.run(sockets=[bound])
    if not server.started:
        raise LaunchError("the service could not be started; stderr says why")


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, then says so."""
        await super().startup(sockets)
        if self.started:
            self._announce()


def _warm_up(forward: Predictor, form: InputForm, max_batch: int) -> None:
    """Runs made-up inputs once, so that the first request finds everything in place; what they come to is nothing."""
    for num_rows in {1, max_batch}:
        try:
            forward(form.example(num_rows), num_rows)
        except Exception as error:
            reason: Any = f"{type(error).__name__}: {error}"
            print(f"the model refuses made-up inputs of {num_rows} rows ({reason}); serving all the same",
                  file=sys.stderr)  # fmt: skip
