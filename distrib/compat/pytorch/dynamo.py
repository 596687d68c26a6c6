"""Keeps torch's compiler out of programs that do not compile.

Building an optimizer or wrapping a model in DDP imports `torch._dynamo`, and with it sympy and a thousand modules more:
1.2 to 1.6 s at every start and about 70 MB in every rank, only to ask whether a function that is not being compiled
should be left out of compilation. `install` puts a module in its place that answers those questions and turns into the
real one at the first other question, such as `torch.compile` asks.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

_NAME = "torch._dynamo"

SYMBOLS = (
    PrivateSymbol(
        "torch._dynamo",
        "building an optimizer or a DDP model imports the compiler, which costs more than a second and 70 MB a rank",
        TORCH_VERSIONS,
        "the compiler is imported as torch does it",
    ),
)


class _LazyDynamo(types.ModuleType):
    """Stands for `torch._dynamo` until someone needs more of it than is answered here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__path__"):
            raise AttributeError(name)
        _load(self)
        return getattr(self, name)


class _Part:
    """The functions of a module of `torch._dynamo` that are called before anything is compiled."""

    def __init__(self, name: str, **functions: Callable[[], Any]) -> None:
        self._name = name
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        _load(sys.modules[_NAME])
        return getattr(importlib.import_module(f"{_NAME}.{self._name}"), name)


def install() -> None:
    """Puts the stand-in in place, unless the compiler is loaded already or this torch is not one it was made for."""
    import torch

    if _NAME in sys.modules or not torch.__version__.startswith(tuple(f"{version}." for version in TORCH_VERSIONS)):
        return
    spec = importlib.util.find_spec(_NAME)
    if spec is None or spec.loader is None:
        return
    module = _LazyDynamo(_NAME)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__file__ = spec.origin
    module.__package__ = _NAME
    vars(module).update(_answers())
    sys.modules[_NAME] = module
    torch._dynamo = module


def is_loaded() -> bool:
    """Whether the real `torch._dynamo` has been imported."""
    module = sys.modules.get(_NAME)
    return module is not None and not isinstance(module, _LazyDynamo)


def _load(module: types.ModuleType) -> None:
    """Turns the stand-in into the real module, in place, so that whoever holds it holds the real one."""
    if type(module) is not _LazyDynamo:
        return
    module.__class__ = types.ModuleType  # type: ignore[assignment]
    for name in _answers():
        vars(module).pop(name, None)
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__path__ = list(module.__spec__.submodule_search_locations or [])
    try:
        module.__spec__.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(_NAME, None)
        raise


def _disable(function: Callable[..., Any], recursive: bool = True, *, wrapping: bool = True, **_: Any) -> Any:
    """`torch._dynamo.disable` for a function that is called before and perhaps after the compiler is loaded."""
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None:
            if not is_loaded():
                return function(*args, **kwargs)
            disabled = sys.modules[_NAME].disable(function, recursive, wrapping=wrapping)
        return disabled(*args, **kwargs)

    return call


def _answers() -> dict[str, Any]:
    """What the stand-in answers itself; queried by optimizers, DDP and `init_process_group`, in this order."""
    return {
        "disable": _disable,
        "graph_break": _nothing,
        "utils": _Part("utils", get_optimize_ddp_mode=_ddp_mode),
        "trace_rules": _Part("trace_rules", clear_lru_cache=_nothing),
    }


def _nothing() -> None:
    """No graph to break and no cache to clear where nothing is compiled."""


def _ddp_mode() -> str:
    """What torch answers for its default settings."""
    return "ddp_optimizer"
