"""The real-time service: a FastAPI app around one model."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from distrib import __version__
from distrib.compat.messages import is_broken_cuda
from distrib.inference.columns import Columns
from distrib.inference.predictor import Predictor
from distrib.inference.serving.batcher import Batcher, BatchingOptions, QueueFullError
from distrib.inference.serving.metrics import ServiceMetrics
from distrib.inference.serving.openapi import RESPONSES, describe_request
from distrib.inference.serving.wire_format import (
    JSON_TYPE,
    RAW_TYPE,
    Arrays,
    RefusedError,
    read_json,
    read_raw,
    write_json,
    write_raw,
)
from distrib.inference.signature import InputSignature

HEALTH_PATH = "/healthz"
_CLOSE = {"connection": "close"}
_GONE = 499
"""The status counted for clients that disconnected before the response."""


@dataclass(frozen=True)
class ServiceOptions:
    """Options of the service.

    Attributes:
        batching: How requests are combined into batches.
        max_body_bytes: The largest accepted body.
        client_seconds: The time that a client has to send a request.
        token: The bearer token that requests must carry; None for no authorization.
    """

    batching: BatchingOptions = field(default_factory=BatchingOptions)
    max_body_bytes: int = 16 * 2**20
    client_seconds: float = 10.0
    token: str | None = None


def make_app(predictor: Predictor, signature: InputSignature, info: dict[str, Any], options: ServiceOptions) -> FastAPI:
    """The service as an ASGI app; its model thread runs during the app's lifespan.

    Args:
        predictor: The model.
        signature: What requests must look like.
        info: Fields of /healthz besides the status.
        options: How to behave.
    """
    service = _Service(predictor, signature, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.batcher.stop)

    app = FastAPI(title="distrib", summary=f"The trained model of {info.get('run')}", version=__version__,
                  lifespan=lifespan)  # fmt: skip
    app.add_api_route("/predict", service.predict, methods=["POST"], response_class=Response,
                      openapi_extra=describe_request(signature), responses=RESPONSES)  # fmt: skip

    @app.get(HEALTH_PATH)
    async def healthz() -> Response:
        """Whether the service works; requires no token."""
        is_healthy = service.batcher.is_alive and not service.is_broken
        body = {"status": "ok" if is_healthy else "broken", **info}
        return Response(json.dumps(body), 200 if is_healthy else 503, media_type=JSON_TYPE)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": service.metrics.content_type})

    if options.token is not None:
        app.add_middleware(_TokenMiddleware, token=options.token)
    return app


class _Service:
    """The request handler: reads a request, queues it for the model and writes the response."""

    def __init__(self, predictor: Predictor, signature: InputSignature, options: ServiceOptions) -> None:
        self._predictor = predictor
        self._signature = signature
        self._options = options
        self.is_broken = False
        self.metrics = ServiceMetrics()
        self.batcher = Batcher(self._predict_batch, options.batching, self.metrics.batch)
        self.metrics.watch(self.batcher)

    async def predict(self, request: Request) -> Response:
        """Predicts each row of the inputs; the response is JSON or raw bytes, like the request."""
        started = time.perf_counter()
        try:
            response = await self._predict(request)
        except RefusedError as error:
            response = Response(
                json.dumps({"detail": error.detail}), error.status, media_type=JSON_TYPE, headers=error.headers
            )
        except ClientDisconnect:
            response = Response(status_code=_GONE)
        self.metrics.request(response.status_code, time.perf_counter() - started)
        return response

    async def _predict(self, request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in (JSON_TYPE, RAW_TYPE):
            await self._receive(request)
            raise RefusedError(415, f"send {JSON_TYPE} or {RAW_TYPE}, not {content_type or 'a body of no type'}")
        self.batcher.num_arriving += 1
        try:
            body = await self._receive(request)
            if self.batcher.is_full:
                raise _too_many()
            is_raw = content_type == RAW_TYPE
            read = read_raw(body, self._signature, request.headers) if is_raw else read_json(body, self._signature)
        finally:
            self.batcher.num_arriving -= 1
        columns = await self._submit(*read)
        if is_raw:
            content, headers = write_raw(columns)
            return Response(content, media_type=RAW_TYPE, headers=headers)
        return Response(write_json(columns), media_type=JSON_TYPE)

    async def _submit(self, arrays: Arrays, num_rows: int) -> Columns:
        most = self._options.batching.max_batch
        if num_rows > most:
            raise RefusedError(413, f"{num_rows} rows are too many for one request; send at most {most}")
        try:
            return await self.batcher.submit(arrays, num_rows)
        except QueueFullError:
            raise _too_many() from None
        except torch.OutOfMemoryError:
            raise RefusedError(503, "out of memory; send fewer rows", {"retry-after": "1"}) from None
        except Exception as error:
            print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
            if self.is_broken:
                raise RefusedError(503, "the GPU has failed; restart this service") from None
            raise RefusedError(422, f"the model fails on these inputs: {type(error).__name__}: {error}") from None

    async def _receive(self, request: Request) -> bytes:
        """The body. One that is too large is read to its end and discarded, so that the client receives the error."""
        limit = self._options.max_body_bytes
        is_too_large = int(request.headers.get("content-length") or 0) > limit
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._options.client_seconds):
                if not (is_too_large and request.headers.get("expect")):
                    async for chunk in request.stream():
                        size += len(chunk)
                        is_too_large = is_too_large or size > limit
                        if is_too_large:
                            chunks.clear()
                        else:
                            chunks.append(chunk)
        except TimeoutError:
            if not is_too_large:
                seconds = self._options.client_seconds
                raise RefusedError(
                    408, f"the body was not received within {seconds:g} s", {"connection": "close"}
                ) from None
        if is_too_large:
            raise RefusedError(413, f"the body is larger than {limit} bytes", _CLOSE)
        return b"".join(chunks)

    def _predict_batch(self, arrays: Arrays, num_rows: int) -> Columns:
        """Predicts a batch, in the model's thread."""
        tensors = {name: torch.from_numpy(array).to(self._signature.tensors[name].torch_dtype)
                   for name, array in arrays.items()}  # fmt: skip
        try:
            return self._predictor(self._signature.batch(tensors), num_rows)
        except Exception as error:
            self.is_broken = self.is_broken or is_broken_cuda(str(error))
            raise


def _too_many() -> RefusedError:
    return RefusedError(429, "too many requests are waiting; try again", {"retry-after": "1"})


class _TokenMiddleware:
    """Rejects requests without the token, except for /healthz."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards the request, or responds with 401."""
        if scope["type"] != "http" or scope["path"] == HEALTH_PATH or self._is_authorized(scope):
            await self._app(scope, receive, send)
            return
        answer = Response(
            json.dumps({"detail": "a valid bearer token is required"}),
            401,
            media_type=JSON_TYPE,
            headers={"www-authenticate": "Bearer", "connection": "close"},
        )
        await answer(scope, receive, send)

    def _is_authorized(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + token.strip(), self._expected)
