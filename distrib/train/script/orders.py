"""Orders of samples that a script gives to `session.batches`."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

from distrib.train.data.target_order import OrderError, OrderFunction
from distrib.train.script.errors import UsageError

ORDERS = ("shuffle", "sequential")

_NUM_ARGUMENTS = 3


def order_name(order: Any) -> str:
    """An order, for people and checkpoints: the same after a restart."""
    if isinstance(order, str):
        return order
    named = order if hasattr(order, "__qualname__") else type(order)
    return f"{named.__module__}:{named.__qualname__}"


def find_order(order: Any) -> OrderFunction:
    """The order that a script gives: a function of (dataset, epoch, seed), an object that is called, or its name.

    Raises:
        UsageError: It does not exist, or cannot be called like that.
    """
    function = _resolve(order) if isinstance(order, str) else order
    if inspect.isclass(function):
        function = function()
    if not callable(function):
        raise UsageError(
            f"session.batches: order is one of {', '.join(ORDERS)}, a function order(dataset, epoch, seed), or the "
            f"name of one as 'module:function', not {order!r}"
        )
    try:
        inspect.signature(function).bind(*[None] * _NUM_ARGUMENTS)
    except TypeError:
        raise UsageError(
            f"session.batches: {order_name(order)} is called as order(dataset, epoch, seed); its signature is "
            f"{inspect.signature(function)}"
        ) from None
    except ValueError:
        pass  # a builtin without a signature
    return function  # type: ignore[no-any-return]


def _resolve(name: str) -> Any:
    if ":" not in name:
        return None
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"session.batches: there is no order {name}: {error}") from error


def order_problem(error: OrderError) -> UsageError:
    """What is wrong with an order, at the script's line."""
    return UsageError(f"session.batches: order: {str(error).removeprefix('data.order: ')}")
