"""Concurrent requests share a forward pass, and each gets its own outputs."""

import asyncio
import threading
import time

import numpy
import pytest

from distrib.inference.serving import batcher as batcher_module
from distrib.inference.serving.batcher import Batcher, BatchingOptions, QueueFullError

pytestmark = pytest.mark.timeout(60)


class Model:
    """Doubles its inputs once it is released; records batch sizes; fails on negative numbers."""

    def __init__(self):
        self.sizes = []
        self.threads = []
        self.seconds = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def __call__(self, arrays, num_rows):
        self.began.set()
        self.gate.wait(10)
        time.sleep(self.seconds)
        self.sizes.append(num_rows)
        self.threads.append(threading.current_thread().name)
        assert len(arrays["inputs"]) == num_rows
        if (arrays["inputs"] < 0).any():
            raise ValueError("negative")
        return {"output": 2 * arrays["inputs"], "text": [str(value) for value in arrays["inputs"].tolist()]}


def serve(model, scenario, **options):
    """Runs `scenario(batcher)` in an event loop."""

    async def main():
        batcher = Batcher(model, BatchingOptions(**options), lambda rows, seconds: None)
        batcher.start()
        try:
            return await scenario(batcher)
        finally:
            model.gate.set()
            await asyncio.to_thread(batcher.stop)

    return asyncio.run(main())


def rows(*values):
    return {"inputs": numpy.array(values)}, len(values)


async def while_busy(model, batcher, *requests):
    """Submits `requests` while the model is busy with another one, then releases it; returns their results."""
    model.gate.clear()
    model.began.clear()
    first = asyncio.create_task(batcher.submit(*rows(0)))
    await asyncio.to_thread(model.began.wait, 10)
    others = [asyncio.create_task(batcher.submit(*rows(*values))) for values in requests]
    await asyncio.sleep(0.05)
    model.gate.set()
    await first
    return await asyncio.gather(*others, return_exceptions=True)


def test_what_gathers_while_the_model_is_busy_is_one_batch_and_each_gets_its_own():
    model = Model()
    answers = serve(model, lambda batcher: while_busy(model, batcher, [1], [2, 3], [4]))
    assert model.sizes == [1, 4]
    assert [answer["output"].tolist() for answer in answers] == [[2], [4, 6], [8]]
    assert [answer["text"] for answer in answers] == [["1"], ["2", "3"], ["4"]]


def test_a_batch_has_no_more_rows_than_allowed_and_the_order_is_kept():
    model = Model()
    serve(model, lambda batcher: while_busy(model, batcher, [1, 1], [2, 2], [3], [4]), max_batch=3)
    assert model.sizes == [1, 2, 3, 1]


def test_one_bad_request_does_not_spoil_the_others():
    model = Model()
    good, bad, other = serve(model, lambda batcher: while_busy(model, batcher, [1], [-1], [3]))
    assert (good["output"].tolist(), other["output"].tolist()) == ([2], [6])
    assert isinstance(bad, ValueError)


def test_too_many_are_refused_at_once_and_later_there_is_room_again():
    model = Model()

    async def scenario(batcher):
        results = await while_busy(model, batcher, [1], [2], [3])
        return results, await batcher.submit(*rows(5)), batcher.num_waiting

    (first, second, third), later, num_waiting = serve(model, scenario, max_queue=3)
    assert first["output"].tolist() == [2]
    assert second["output"].tolist() == [4]
    assert isinstance(third, QueueFullError)
    assert later["output"].tolist() == [10]
    assert num_waiting == 0


def test_it_waits_for_others_only_while_they_are_coming_and_not_for_long():
    model = Model()

    async def scenario(batcher):
        alone = await timed(batcher.submit(*rows(1)))
        batcher.num_arriving = 1
        in_vain = await timed(batcher.submit(*rows(1)))
        together = asyncio.gather(batcher.submit(*rows(1)), later(batcher))
        await together
        return alone, in_vain

    async def later(batcher):
        await asyncio.sleep(0.05)
        return await batcher.submit(*rows(2))

    alone, in_vain = serve(model, scenario, max_wait_seconds=1.5)
    assert alone < 1
    assert 1.4 < in_vain < 15
    assert model.sizes == [1, 1, 2]


async def timed(awaitable):
    started = time.monotonic()
    await awaitable
    return time.monotonic() - started


def test_one_alone_is_answered_without_the_thread_and_several_at_once_are_not(monkeypatch):
    monkeypatch.setattr(batcher_module, "QUICK_SECONDS", 0.5)
    model = Model()

    async def scenario(batcher):
        for value in range(3):
            answer = await batcher.submit(*rows(value))
            assert answer["output"].tolist() == [2 * value]
        answers = await asyncio.gather(*(batcher.submit(*rows(value)) for value in range(5)))
        with pytest.raises(ValueError, match="negative"):
            await batcher.submit(*rows(-1))
        return [answer["output"].tolist() for answer in answers], batcher.num_waiting

    assert serve(model, scenario) == ([[0], [2], [4], [6], [8]], 0)
    assert model.threads[:3] == ["model", "MainThread", "MainThread"]  # before the first nothing is known
    assert set(model.threads[3:-1]) == {"model"}
    assert sum(model.sizes[3:-1]) == 5


def test_what_takes_long_is_left_to_the_thread(monkeypatch):
    monkeypatch.setattr(batcher_module, "QUICK_SECONDS", 0.2)  # even on a busy machine the model is quicker
    model = Model()

    async def scenario(batcher):
        for value in range(3):
            await batcher.submit(*rows(value))
        model.seconds = 0.25
        for value in range(3):
            await batcher.submit(*rows(value))

    serve(model, scenario)
    assert model.threads == ["model", "MainThread", "MainThread", "MainThread", "model", "model"]


def test_what_waits_is_answered_before_the_end():
    model = Model()

    async def scenario(batcher):
        model.gate.clear()
        tasks = [asyncio.create_task(batcher.submit(*rows(value))) for value in range(5)]
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(asyncio.to_thread(batcher.stop))
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        await stopping
        batcher.stop = lambda: None
        return [answer["output"].tolist() for answer in answers]

    assert serve(model, scenario) == [[0], [2], [4], [6], [8]]
