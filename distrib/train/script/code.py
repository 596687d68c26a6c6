"""Which names the code of the running script uses."""

from __future__ import annotations

import sys
from types import CodeType


def script_mentions(name: str) -> bool:
    """Whether the file that runs as `__main__` has an attribute or a name `name`; False if it cannot be found."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return _mentions(frame.f_code, name)
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _mentions(code: CodeType, name: str) -> bool:
    return name in code.co_names or any(
        _mentions(constant, name) for constant in code.co_consts if isinstance(constant, CodeType)
    )
