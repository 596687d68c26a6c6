"""Which members of the session a job's function uses, read from its code before it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from distrib.job.reader import Job


def takes_session(function: Callable[..., Any]) -> bool:
    """Whether a function has a parameter named `session`."""
    try:
        return "session" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def mentions(function: Any, member: str) -> bool:
    """Whether a function's code, or code of its module that it names, has an attribute or a name `member`.

    Functions of other modules are not searched, so that a name such as `stop` in a library does not count.
    """
    return any(member in code.co_names for code in _codes(function, set()))


def check_session_step(job: Job, step: Callable[..., Any]) -> None:
    """Refuses what does not work with a step that takes the session.

    Raises:
        JobError: The job accumulates gradients that the step computes itself, or sets the size of evaluation batches.
    """
    spec = job.spec
    if spec.data.eval_batch_size is not None:
        raise job.error(
            "data.eval_batch_size",
            "a step with a session is evaluated in global batches of data.batch_size, split as in training; remove "
            "data.eval_batch_size",
        )
    if spec.train.accumulate > 1 and mentions(step, "minimize"):
        raise job.error(
            "train.accumulate",
            f"{spec.train.accumulate} micro-batches do not work with session.minimize, which updates at once; set "
            "train.accumulate to 1",
        )


def _codes(function: Any, seen: set[int]) -> Iterator[CodeType]:
    for plain in _functions(function):
        if id(plain) in seen:
            continue
        seen.add(id(plain))
        for code in _nested(plain.__code__):
            yield code
            for name in code.co_names:
                other = plain.__globals__.get(name)
                if getattr(other, "__module__", None) == plain.__module__:
                    yield from _codes(other, seen)


def _functions(function: Any) -> Iterator[FunctionType]:
    """The Python functions that a callable consists of: itself, or the methods of a class or an object."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    if inspect.ismethod(function):
        function = function.__func__
    if isinstance(function, FunctionType):
        yield function
        return
    owner = function if inspect.isclass(function) else type(function)
    if owner.__module__ != "builtins":
        yield from (member for _, member in inspect.getmembers_static(owner) if isinstance(member, FunctionType))


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
