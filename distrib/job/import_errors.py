"""Explains to the author of a job why a target cannot be imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from distrib.job.fields import nearest
from distrib.job.source_folder import source_folder

MAX_NAMES = 20


def explain_import(error: BaseException, name: str, folder: Path) -> str:
    """Explains why importing module `name` failed: it does not exist, or it raised an error.

    Args:
        error: What `importlib.import_module(name)` raised.
        name: The module's name.
        folder: The folder of the job's spec.
    """
    frames = _own_frames(error)
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    # The same error comes from an import inside the module; but then the module's frame is in the traceback.
    if missing is not None and f"{name}.".startswith(f"{missing}.") and not frames:
        return _missing_module(name, missing, folder)
    return _failed_import(error, name, frames, folder)


def explain_attribute(target: str, module: ModuleType, owner: object, name: str) -> str:
    """Explains that `owner`, which is `module` or an object in it, has no attribute `name`, part of `target`."""
    owner_name = module.__name__ if owner is module else getattr(owner, "__qualname__", type(owner).__qualname__)
    message = f"'{target}': {owner_name} has no '{name}'"
    if owner is module and _is_module(f"{module.__name__}.{name}"):
        rest = target.partition(":")[2].partition(".")[2] or "NAME"
        return f"{message}, but there is a module of that name; write '{module.__name__}.{name}:{rest}'"
    names = [other for other in dir(owner) if not other.startswith("_")]
    if match := nearest(name, names):
        return f"{message}; did you mean '{match}'?"
    listed = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
    return f"{message}; it has {listed}" if names else f"{message}, or any other public name"


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an import error without those of the import machinery and distrib."""
    machinery = ("<frozen importlib", importlib.__file__, os.path.dirname(__file__))
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(machinery)]


def _missing_module(name: str, missing: str, folder: Path) -> str:
    message = f"there is no module '{missing}'" + ("" if missing == name else f" (part of '{name}')")
    if name.endswith(".py"):
        return f"{message}; write '{name.removesuffix('.py')}', without .py"
    searched = _searched(folder)
    parent, _, last = missing.rpartition(".")
    paths = list(getattr(sys.modules.get(parent), "__path__", [])) if parent else searched
    if match := nearest(last, _module_names(paths)):
        return f"{message}; did you mean '{'.'.join(filter(None, [parent, match]))}'?"
    where = f"in {parent}" if parent else f"in {' or '.join(searched)}, and none is installed"
    return f"{message} {where}; the module jobs.digits is a file jobs/digits.py in one of these folders"


def _module_names(paths: Sequence[str]) -> list[str]:
    """The modules and packages in these folders, including packages without an `__init__.py`."""
    entries = [entry for path in paths if os.path.isdir(path) for entry in Path(path).iterdir()]
    files = [entry.stem for entry in entries if entry.suffix == ".py"]
    folders = [entry.name for entry in entries if entry.name.isidentifier() and next(entry.glob("*.py"), None)]
    return [*files, *folders]


def _failed_import(error: BaseException, name: str, frames: Sequence[traceback.FrameSummary], folder: Path) -> str:
    reason, where = str(error), ""
    if isinstance(error, SyntaxError) and error.filename:
        reason, where = error.msg, f" ({error.filename}:{error.lineno})"
    elif frames:
        searched = tuple(_searched(folder))
        users = [frame for frame in frames if frame.filename.startswith(searched) and not _is_installed(frame.filename)]
        frame = (users or frames)[-1]
        where = f" ({frame.filename}:{frame.lineno})"
    message = f"importing '{name}' fails: {type(error).__name__}: {reason}{where}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        message += f"; install '{error.name.partition('.')[0]}' on every host that runs ranks, or fix the import"
    return message


def _searched(folder: Path) -> list[str]:
    """The entries of `sys.path` that `add_import_paths` added: those up to the spec's folder, and the source folder."""
    path = os.path.abspath(folder)
    if path not in sys.path:
        return [path]
    end = sys.path.index(path) + 1
    source = source_folder(Path(path))
    return sys.path[: end + 1] if source is not None and sys.path[end : end + 1] == [str(source)] else sys.path[:end]


def _is_installed(filename: str) -> bool:
    return "site-packages" in Path(filename).parts


def _is_module(name: str) -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(name) is not None
    return False
