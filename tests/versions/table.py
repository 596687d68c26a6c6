"""The table of what was tried, in build/versions.md; a line is added for each environment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from tests.versions.environment import REPOSITORY

FILE = REPOSITORY / "build" / "versions.md"
COLUMNS = ("changed", "Python", "torch", "Ray", "tests", "passed", "skipped", "failed", "minutes", "date")


def add_line(*cells: object) -> None:
    """Adds a line with these cells, the date behind them, and prints it; shorter lines are filled up."""
    filled = [*cells, *[""] * (len(COLUMNS) - 1 - len(cells)), date.today().isoformat()]
    FILE.parent.mkdir(exist_ok=True)
    if not FILE.exists():
        FILE.write_text(f"{_line(COLUMNS)}{_line(['---'] * len(COLUMNS))}", encoding="utf-8")
    with FILE.open("a", encoding="utf-8") as table:
        table.write(_line(filled))
    print(_line(filled), end="", flush=True)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"
