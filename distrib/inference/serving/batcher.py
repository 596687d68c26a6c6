"""Dynamic batching: concurrent requests share a forward pass, which runs in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy

from distrib.inference.columns import Columns
from distrib.inference.serving.wire_format import Arrays

PredictBatch = Callable[[Arrays, int], Columns]

QUICK_SECONDS = 0.002
"""A forward pass below this time runs in the event loop, which saves a lone request two thread switches."""


class QueueFullError(Exception):
    """The queue has no room for another request."""


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are combined into batches.

    Attributes:
        max_batch: The maximum number of rows in a forward pass.
        max_wait_seconds: The maximum time that a request waits for others that are being received.
        max_queue: The maximum number of requests that are waiting or being processed.
    """

    max_batch: int = 64
    max_wait_seconds: float = 0.002
    max_queue: int = 256


@dataclass
class _Waiting:
    """A queued request."""

    arrays: Arrays
    num_rows: int
    future: asyncio.Future[Columns]
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Processes requests in batches, in order of arrival.

    Requests queue up while the model computes; the next batch takes all of them, up to `max_batch` rows. A batch waits
    for further requests only while some are being received, and at most `max_wait_seconds`. A lone request runs in the
    event loop if the previous forward pass was fast enough.

    Args:
        predict: Computes the outputs of a batch; never called by two threads at a time.
        options: How to batch.
        observe: Called with the rows of a batch and the seconds of its forward pass.
    """

    def __init__(self, predict: PredictBatch, options: BatchingOptions, observe: Callable[[int, float], None]) -> None:
        self.num_arriving = 0
        """Requests that are being received; updated by the service."""
        self.num_waiting = 0
        self._predict = predict
        self._options = options
        self._observe = observe
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._held: _Waiting | None = None
        self._is_stopping = False
        self._num_deciding = 0
        self._seconds_per_row = math.inf
        self._seconds_per_call = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def is_full(self) -> bool:
        """Whether a further request would be rejected."""
        return self.num_waiting >= self._options.max_queue

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread is running."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the model's thread; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Processes the queued requests, then ends the thread."""
        self._queue.put(None)
        self._thread.join()

    async def submit(self, arrays: Arrays, num_rows: int) -> Columns:
        """The outputs for a request of at most `max_batch` rows.

        Raises:
            QueueFullError: The queue is full.
            Exception: The model failed on this request.
        """
        if self.is_full:
            raise QueueFullError
        assert self._loop is not None
        is_alone = self._is_quick(num_rows) and await self._is_alone()
        self.num_waiting += 1
        try:
            if is_alone:
                return self._timed_predict(arrays, num_rows)
            waiting = _Waiting(arrays, num_rows, self._loop.create_future())
            self._queue.put(waiting)
            return await waiting.future
        finally:
            self.num_waiting -= 1

    def _is_quick(self, num_rows: int) -> bool:
        """Whether the forward pass, judging by the last one, is fast enough to run in the event loop."""
        return max(self._seconds_per_call, num_rows * self._seconds_per_row) < QUICK_SECONDS

    async def _is_alone(self) -> bool:
        """Whether no other request is queued or being received, after pending events were handled."""
        self._num_deciding += 1
        try:
            await asyncio.sleep(0)
            return self._num_deciding == 1 and self.num_waiting == 0 and self.num_arriving == 0
        finally:
            self._num_deciding -= 1

    def _timed_predict(self, arrays: Arrays, num_rows: int) -> Columns:
        started = time.perf_counter()
        columns = self._predict(arrays, num_rows)
        seconds = time.perf_counter() - started
        self._seconds_per_call, self._seconds_per_row = seconds, seconds / num_rows
        self._observe(num_rows, seconds)
        return columns

    def _run(self) -> None:
        while not self._is_stopping:
            batch = self._gather()
            if batch:
                self._process(batch)

    def _gather(self) -> list[_Waiting]:
        """The requests of the next batch; waits for the first of them."""
        first = self._held or self._queue.get()
        self._held = None
        if first is None:
            self._is_stopping = True
            return []
        batch, num_rows = [first], first.num_rows
        while num_rows < self._options.max_batch:
            try:
                following = self._queue.get(timeout=self._wait_seconds(first))
            except queue.Empty:
                break
            if following is None:
                self._is_stopping = True
                break
            if num_rows + following.num_rows > self._options.max_batch:
                self._held = following
                break
            batch.append(following)
            num_rows += following.num_rows
        return batch

    def _wait_seconds(self, first: _Waiting) -> float:
        """How long to wait for another request; 0 unless one is being received."""
        if self.num_arriving == 0:
            return 0.0
        return max(0.0, first.arrived + self._options.max_wait_seconds - time.monotonic())

    def _process(self, batch: Sequence[_Waiting]) -> None:
        """Predicts a batch; if it fails, retries each request alone, so that only the faulty one fails."""
        results: list[Columns | Exception]
        try:
            results = list(self._predict_together(batch))
        except Exception as error:
            results = [error] if len(batch) == 1 else [self._predict_alone(waiting) for waiting in batch]
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_deliver, batch, results)

    def _predict_together(self, batch: Sequence[_Waiting]) -> list[Columns]:
        if len(batch) == 1:
            return [self._timed_predict(batch[0].arrays, batch[0].num_rows)]
        names = batch[0].arrays
        arrays = {name: numpy.concatenate([waiting.arrays[name] for waiting in batch]) for name in names}
        columns = self._timed_predict(arrays, sum(waiting.num_rows for waiting in batch))
        parts, start = [], 0
        for waiting in batch:
            stop = start + waiting.num_rows
            parts.append({name: column[start:stop] for name, column in columns.items()})
            start = stop
        return parts

    def _predict_alone(self, waiting: _Waiting) -> Columns | Exception:
        try:
            return self._timed_predict(waiting.arrays, waiting.num_rows)
        except Exception as error:
            return error


def _deliver(batch: Sequence[_Waiting], results: Sequence[Columns | Exception]) -> None:
    """Delivers the results in the event loop; clients that disconnected are skipped."""
    for waiting, result in zip(batch, results, strict=True):
        if waiting.future.done():
            continue
        if isinstance(result, Exception):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)
