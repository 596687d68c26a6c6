"""The parts that a page is made of: sections, tables, notes, charts, and the page around them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from distrib.observe.page.svg import Chart, Floats

_MAX_EXTREMES = 12
_SIGNIFICANT_DIGITS = 6
_LONG_CELL = 40


def page(title: str, sections: Sequence[str], charts: Sequence[Chart] = ()) -> str:
    """A complete HTML document that refers to nothing outside itself.

    Args:
        title: The document's title.
        sections: The content, as HTML.
        charts: The charts that the sections contain, whose values the script reads.
    """
    folder = resources.files("distrib.observe.page")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    data = json.dumps({chart.name: _chart_data(chart) for chart in charts}, allow_nan=False).replace("<", "\\u003c")
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title><style>{style}</style></head>",
        "<body><main>",
        *(section for section in sections if section),
        "</main>",
        f'<script type="application/json" id="chart-data">{data}</script>',
        f"<script>{script}</script></body></html>\n",
    ])  # fmt: skip


def section(title: str, *content: str) -> str:
    """A section with a heading; nothing if it has no content."""
    inner = "\n".join(part for part in content if part)
    return f"<section><h2>{html.escape(title)}</h2>{inner}</section>" if inner else ""


def details(title: str, content: str) -> str:
    """Content that is folded away until it is asked for."""
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>" if content else ""


def note(text: str | None) -> str:
    """Something to know, in a box."""
    return f'<p class="note">{html.escape(text)}</p>' if text else ""


def bullets(items: Sequence[str], title: str = "") -> str:
    """Sentences as a list, with a heading if there is a title."""
    heading = f"<h3>{html.escape(title)}</h3>" if title and items else ""
    shown = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"{heading}<ul>{shown}</ul>" if items else ""


def facts(values: Mapping[str, str | None]) -> str:
    """Labeled values side by side, without those that are not known."""
    items = [
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in values.items()
        if value
    ]
    return f'<dl class="facts">{"".join(items)}</dl>' if items else ""


def preformatted(text: str, label: str) -> str:
    """Text in a fixed-width font that scrolls in itself, also by keyboard."""
    return f'<pre tabindex="0" role="region" aria-label="{html.escape(label)}">{html.escape(text)}</pre>'


def table(label: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, identifier: str = "") -> str:
    """A table that scrolls in itself where it is too wide; columns of numbers are aligned at the right.

    Args:
        label: What it contains, for screen readers.
        header: Titles of the columns.
        rows: Cells, as text.
        identifier: The element's id, if anything refers to it.
    """
    if not rows:
        return ""
    is_number = [all(_looks_like_number(row[column]) for row in rows) for column in range(len(header))]
    head = "".join(
        f'<th scope="col"{_class("number" if right else "")}>{html.escape(title)}</th>'
        for title, right in zip(header, is_number, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, is_number=right) for cell, right in zip(row, is_number, strict=True)) + "</tr>"
        for row in rows
    )
    known = f' id="{identifier}"' if identifier else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"<table{known}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figures(charts: Sequence[Chart]) -> str:
    """Charts in a grid, each with a line that shows values at the pointer or at the position moved by arrow keys."""
    return '<div class="charts">' + "".join(map(_figure, charts)) + "</div>" if charts else ""


def _figure(chart: Chart) -> str:
    title = html.escape(chart.title)
    return (
        f'<figure tabindex="0" data-chart="{chart.name}" aria-label="{title}; arrow keys show values">'
        f"<figcaption>{title}</figcaption>{chart.svg}"
        f'<output class="readout">{html.escape(_extremes(chart))}</output></figure>'
    )


def _extremes(chart: Chart) -> str:
    """The lowest and the highest value of each curve, of many the first, so that they can be read without a pointer."""
    parts = []
    for curve in [curve for curve in chart.curves if curve.is_main][:_MAX_EXTREMES]:
        values = curve.y[np.isfinite(curve.y)]
        if len(values):
            parts.append(f"{curve.name} {_short(values.min())} to {_short(values.max())}")
    return "; ".join(parts)


def _chart_data(chart: Chart) -> dict[str, Any]:
    curves = [{"name": curve.name, "x": _rounded(curve.x), "y": _rounded(curve.y)} for curve in chart.curves]
    return {**chart.axes, "title": chart.title, "curves": curves}


def _rounded(values: Floats) -> list[float | None]:
    return [_short_number(value) if np.isfinite(value) else None for value in values.tolist()]


def _short_number(value: float) -> float:
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def _short(value: float) -> str:
    return f"{value:.4g}"


def _cell(text: str, *, is_number: bool) -> str:
    kind = "number" if is_number else "long" if len(text) > _LONG_CELL else ""
    return f"<td{_class(kind)}>{html.escape(text)}</td>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _looks_like_number(text: str) -> bool:
    return not text or text == "–" or text[0].isdigit() or (text[0] in "+-−" and text[1:2].isdigit())
