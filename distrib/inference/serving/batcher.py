"""Dynamic batching: requests that come together are answered together, in a thread beside the event loop."""

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

Answer = Callable[[Arrays, int], Columns]

QUICK_SECONDS = 0.002
"""How long the event loop may be kept by an answer that it gives itself, which spares a request two thread switches."""


class QueueFullError(Exception):
    """As many requests wait as may wait."""


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are put together.

    Attributes:
        max_batch: The most rows of a forward pass.
        max_wait_seconds: The longest that a request waits for others that are just coming in.
        max_queue: The most requests that wait or are being answered.
    """

    max_batch: int = 64
    max_wait_seconds: float = 0.002
    max_queue: int = 256


@dataclass
class _Waiting:
    """A request that waits for its answer."""

    arrays: Arrays
    num_rows: int
    future: asyncio.Future[Columns]
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Answers requests in batches, in the order of their arrival.

    While the model computes, requests gather; when it is free it takes all that wait, up to `max_batch` rows. It waits
    for more only while others are known to be coming in, and never longer than `max_wait_seconds`. A request that is
    alone and can be answered at once, by what the model took before, does not go through the thread.

    Args:
        answer: Answers a batch; never called by two threads at a time.
        options: How to batch.
        observe: Told the rows of a batch and the seconds that it took.
    """

    def __init__(self, answer: Answer, options: BatchingOptions, observe: Callable[[int, float], None]) -> None:
        self.num_arriving = 0
        """Requests that are being received; kept up to date by the service."""
        self.num_waiting = 0
        self._answer = answer
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
        """Whether a further request would be refused."""
        return self.num_waiting >= self._options.max_queue

    @property
    def is_alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the model's thread; to be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Answers what waits, then ends the thread."""
        self._queue.put(None)
        self._thread.join()

    async def submit(self, arrays: Arrays, num_rows: int) -> Columns:
        """The answers to a request of at most `max_batch` rows.

        Raises:
            QueueFullError: Too many wait.
            Exception: What the model raised for this request alone.
        """
        if self.is_full:
            raise QueueFullError
        assert self._loop is not None
        is_alone = self._is_quick(num_rows) and await self._is_alone()
        self.num_waiting += 1
        try:
            if is_alone:
                return self._timed_answer(arrays, num_rows)
            waiting = _Waiting(arrays, num_rows, self._loop.create_future())
            self._queue.put(waiting)
            return await waiting.future
        finally:
            self.num_waiting -= 1

    def _is_quick(self, num_rows: int) -> bool:
        """Whether the model, by its last answer, takes so little time that the event loop can give it."""
        return max(self._seconds_per_call, num_rows * self._seconds_per_row) < QUICK_SECONDS

    async def _is_alone(self) -> bool:
        """Whether, after all that has come in by now was looked at, no other request waits or is coming."""
        self._num_deciding += 1
        try:
            await asyncio.sleep(0)
            return self._num_deciding == 1 and self.num_waiting == 0 and self.num_arriving == 0
        finally:
            self._num_deciding -= 1

    def _timed_answer(self, arrays: Arrays, num_rows: int) -> Columns:
        started = time.perf_counter()
        columns = self._answer(arrays, num_rows)
        seconds = time.perf_counter() - started
        self._seconds_per_call, self._seconds_per_row = seconds, seconds / num_rows
        self._observe(num_rows, seconds)
        return columns

    def _run(self) -> None:
        while not self._is_stopping:
            batch = self._gather()
            if batch:
                self._answer_all(batch)

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
                following = self._queue.get(timeout=self._patience(first))
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

    def _patience(self, first: _Waiting) -> float:
        """How long to wait for another request: not at all unless one is coming in."""
        if self.num_arriving == 0:
            return 0.0
        return max(0.0, first.arrived + self._options.max_wait_seconds - time.monotonic())

    def _answer_all(self, batch: Sequence[_Waiting]) -> None:
        """Answers a batch; where that fails, each request by itself, so that only the one at fault suffers."""
        answers: list[Columns | Exception]
        try:
            answers = list(self._answer_together(batch))
        except Exception as error:
            answers = [error] if len(batch) == 1 else [self._answer_alone(waiting) for waiting in batch]
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_deliver, batch, answers)

    def _answer_together(self, batch: Sequence[_Waiting]) -> list[Columns]:
        if len(batch) == 1:
            return [self._timed_answer(batch[0].arrays, batch[0].num_rows)]
        names = batch[0].arrays
        arrays = {name: numpy.concatenate([waiting.arrays[name] for waiting in batch]) for name in names}
        columns = self._timed_answer(arrays, sum(waiting.num_rows for waiting in batch))
        parts, start = [], 0
        for waiting in batch:
            stop = start + waiting.num_rows
            parts.append({name: column[start:stop] for name, column in columns.items()})
            start = stop
        return parts

    def _answer_alone(self, waiting: _Waiting) -> Columns | Exception:
        try:
            return self._timed_answer(waiting.arrays, waiting.num_rows)
        except Exception as error:
            return error


def _deliver(batch: Sequence[_Waiting], answers: Sequence[Columns | Exception]) -> None:
    """Hands the answers over, in the event loop; whoever has gone gets none."""
    for waiting, answer in zip(batch, answers, strict=True):
        if waiting.future.done():
            continue
        if isinstance(answer, Exception):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)
