"""Numbers, times, sizes and paths as people read them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86400
_MAX_VALUES = 6
"""Of a metric of several values, shown on a line."""


def number(value: object) -> str:
    """A measured value in four significant digits; anything that is not a number is shown as a dash."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–"
    if isinstance(value, int) or 9999.5 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".")


def rate(samples_per_second: float) -> str:
    """A speed: `1,234 samples/s`."""
    return f"{number(samples_per_second if samples_per_second < 100 else round(samples_per_second))} samples/s"


def values(metrics: Mapping[str, Any]) -> str:
    """Metrics on one line, the loss last: `accuracy 0.978  loss 0.07`."""
    return "  ".join(value_pairs(metrics))


def value_pairs(metrics: Mapping[str, Any]) -> list[str]:
    """Metrics with their names, the loss last: `["accuracy 0.978", "loss 0.07"]`."""
    names = sorted(metrics, key=lambda name: name == "loss")
    return [f"{name} {metric_value(metrics[name])}" for name in names]


def metric_value(value: object) -> str:
    """A metric's value: a number, a vector as `[0.61 0.72]`, a collection by name; cut where it is long."""
    if isinstance(value, Mapping):
        shown = [f"{name} {metric_value(item)}" for name, item in value.items()]
    elif isinstance(value, list | tuple):
        shown = [metric_value(item) for item in value]
    else:
        return number(value)
    more = [f"… {len(shown)} in all"] if len(shown) > _MAX_VALUES else []
    return f"[{' '.join(shown[:_MAX_VALUES] + more)}]"


def flow(start: str, items: Sequence[str], width: int | None) -> list[str]:
    """`start` and items on as many lines of at most `width` columns as needed, broken only between items.

    Args:
        start: The beginning of the first line, with its own separator.
        items: What follows; further lines are indented by two.
        width: Columns; None for a single line.
    """
    lines = [start]
    is_first = True
    for item in items:
        gap = "" if is_first else "  "
        if width is None or len(lines[-1]) + len(gap) + len(item) <= width:
            lines[-1] += gap + item
        else:
            lines.append("  " + item)
        is_first = False
    return [line.rstrip() for line in lines]


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `3.6 s`, `45 s`, `2 min 5 s`, `3 h 10 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for large, size, small, part in (("d", DAY, "h", HOUR), ("h", HOUR, "min", MINUTE), ("min", MINUTE, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {large} {rest} {small}" if rest else f"{whole // size} {large}"
    return f"{whole} s"


def clock(seconds: float) -> str:
    """A length of time as a clock shows it: `0:05`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes, rest = whole // HOUR, whole % HOUR // MINUTE, whole % MINUTE
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def clock_time(time: float) -> str:
    """Unix seconds as the local time of day: `14:05:09.123`; a dash if it is 0, which is not known."""
    return f"{datetime.fromtimestamp(time):%H:%M:%S.%f}"[:-3] if time else "–"


def age(seconds: float) -> str:
    """An age in one unit: `12s`, `5m`, `3h`, `2d`."""
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one: `94.3 %`; a dash if it is unknown."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def num_bytes(count: float) -> str:
    """A size in binary units: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def num_items(count: float) -> str:
    """A large count, shortened: `850`, `25.6 M`."""
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"


def plural(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`, `2 processes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def shares(sizes: Sequence[int]) -> str:
    """The slices of a batch: `32 per rank`, `10 to 11 per rank`."""
    smallest, largest = min(sizes), max(sizes)
    return f"{largest:,} per rank" if smallest == largest else f"{smallest:,} to {largest:,} per rank"


def short_path(path: Path | str) -> str:
    """A path, relative if it is inside the working directory; a URL (text) is returned unchanged."""
    if isinstance(path, str):
        return path
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative
