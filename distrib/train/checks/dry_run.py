"""One batch of evaluation, tried before the first step of a run.

Evaluation is the user's code. It is tried in a forked process, or on a copy where a process cannot be forked, so that
the training sees nothing of it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from distrib.errors import DistribError
from distrib.train.data.loader import LoaderFailedError
from distrib.train.objective.evaluation import Evaluator
from distrib.train.process.forked import run_forked
from distrib.train.process.tracebacks import user_traceback

_PATIENCE_SECONDS = 10.0
"""A trial that takes longer is given up: what it would have found, the evaluation itself finds."""


class DryRunFailedError(LoaderFailedError):
    """The user's code raised in the trial of an evaluation batch; has the error's type, text and frames."""


def try_evaluation(evaluator: Evaluator, device: torch.device, scalars: list[str]) -> None:
    """Evaluates one batch and computes the metrics, unseen by the training.

    Args:
        evaluator: Evaluates.
        device: Where the model is.
        scalars: The values that must be single numbers, by name: of the best weights, and of the schedule.

    Raises:
        DryRunFailedError: It raises.
    """

    def work(evaluator: Evaluator) -> None:
        values = evaluator.try_batch()
        for name in scalars:
            if isinstance(values.get(name), list | dict):
                raise DistribError(
                    f"metrics.{name}: its value is not a number but {_form(values[name])}, so it cannot say which "
                    "weights are best or drive a schedule; use another metric there, or average it"
                )

    if device.type == "cpu" and sys.platform == "linux":
        _in_child(lambda: work(evaluator))
        return
    with contextlib.suppress(copy.Error, RuntimeError, TypeError, torch.OutOfMemoryError):
        trial = evaluator.copy()
        with torch.random.fork_rng(), _failures_reported():
            work(trial)


def _form(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else f"a dict of {', '.join(map(str, value))}"


@contextmanager
def _failures_reported() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DryRunFailedError(*_described(error)) from None


def _described(error: BaseException) -> tuple[str, str, str]:
    shown = "" if isinstance(error, DistribError) else user_traceback(error)
    return type(error).__name__, str(error), shown


def _in_child(work: Callable[[], None]) -> None:
    """Runs `work` in a forked process; raises what it raised."""

    def answer() -> bytes:
        try:
            work()
        except BaseException as error:
            return json.dumps(_described(error)).encode()
        return b""

    problem = run_forked(answer, _PATIENCE_SECONDS)
    if problem:
        raise DryRunFailedError(*json.loads(problem))
