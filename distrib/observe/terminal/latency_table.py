"""Measured latencies as a table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from distrib.observe.format import number

_NARROWEST = 100
"""Width of a table that goes to a file or a pipe."""


def print_latencies(rows: Sequence[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Prints rows as `distrib latency --json` has them as a table, and below it why rows have no numbers."""
    stream = stream or sys.stdout
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("device", overflow="fold")
    table.add_column("mode")
    for title in ("batch", "p50 ms", "p95 ms", "p99 ms", "transfer ms", "samples/s"):
        table.add_column(title, justify="right", no_wrap=True)
    reasons: dict[str, int] = {}
    for row in rows:
        cells = [row["device"], row["mode"], str(row["batch_size"])]
        if row["reason"] is None:
            names = ("p50_ms", "p95_ms", "p99_ms", "transfer_ms", "samples_per_second")
            cells += [number(row[name]) for name in names]
        else:
            cells += [f"– ({reasons.setdefault(row['reason'], len(reasons) + 1)})"]
        table.add_row(*cells)
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _NARROWEST)
    console.print(table)
    for reason, index in reasons.items():
        console.print(f"({index}) {reason}", soft_wrap=True, markup=False)
