"""Charts as SVG elements whose colors and fonts are those of the page around them."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distrib.errors import DistribError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

WIDTH_INCHES, HEIGHT_INCHES, FONT_SIZE = 5.2, 3.3, 11
_POINTS_PER_INCH = 72
_TEXT, _GRID = "#010101", "#020202"
COLORS = {_TEXT: "var(--text)", _GRID: "var(--grid)"}
"""Colors that stand for the page's own, which differ between light and dark."""
_SERIES = 8
for _number in range(_SERIES):
    COLORS[f"#0300{_number:02x}"] = f"var(--series-{_number})"
for _number, _kind in enumerate(("restart", "resize", "warning", "checkpoint")):
    COLORS[f"#0400{_number:02x}"] = f"var(--{_kind})"
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')


class ReportLibraryMissingError(DistribError):
    """The library that draws the charts is not installed."""


@dataclass
class Curve:
    """A curve of a chart, as the page's script reads it.

    Attributes:
        name: Its label.
        x: Positions.
        y: Values.
        is_main: Whether its lowest and highest value are written below the chart.
    """

    name: str
    x: Floats
    y: Floats
    is_main: bool = True


@dataclass
class Chart:
    """A finished chart.

    Attributes:
        name: An id that no other chart of the page has.
        title: What it shows.
        svg: The SVG element.
        curves: Its curves.
        axes: Where the axes are in the SVG's coordinates, and the limits and scales of x and y.
    """

    name: str
    title: str
    svg: str
    curves: list[Curve] = field(default_factory=list)
    axes: dict[str, Any] = field(default_factory=dict)


def series_color(number: int) -> str:
    """The color of the series with this number, for use in a drawing function."""
    return f"#0300{number % _SERIES:02x}"


def mark_color(kind: str) -> str:
    """The color of marks of this kind, for use in a drawing function."""
    return next(color for color, variable in COLORS.items() if variable == f"var(--{kind})")


def make_chart(name: str, title: str, draw: Callable[[Axes], list[Curve]]) -> Chart:
    """Draws a chart.

    Args:
        name: An id that no other chart of the page has.
        title: What it shows.
        draw: Draws on the axes, and returns the curves that the page's script should know.

    Raises:
        ReportLibraryMissingError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ReportLibraryMissingError(
            "the charts need matplotlib, which is not installed: pip install 'distrib[report]'"
        ) from None
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": FONT_SIZE,
        "path.simplify": False,
        "text.color": _TEXT,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _TEXT,
        "xtick.labelcolor": _TEXT,
        "ytick.labelcolor": _TEXT,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
    }
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        axes.spines[["top", "right"]].set_visible(False)
        curves = draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        geometry = _geometry(axes)
    text = file.getvalue()
    return Chart(name, title, _for_page(text[text.index("<svg") :], name, title), curves, geometry)


def draw_legend(axes: Axes) -> None:
    """The names of several curves, above the axes, where they hide none."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > 1:
        axes.legend(
            frameon=False,
            fontsize=10,
            ncols=1 if max(map(len, labels)) > 24 else 2,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderaxespad=0.2,
        )


def _geometry(axes: Axes) -> dict[str, Any]:
    """Where the axes are in points from the top left, and what they span."""
    figure = axes.figure
    box = axes.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    left, right = (value * _POINTS_PER_INCH for value in (box.x0, box.x1))
    top, bottom = ((HEIGHT_INCHES - value) * _POINTS_PER_INCH for value in (box.y1, box.y0))
    return {
        "box": [round(float(value), 2) for value in (left, top, right, bottom)],
        "x": [float(value) for value in axes.get_xlim()],
        "y": [float(value) for value in axes.get_ylim()],
        "x_log": axes.get_xscale() == "log",
        "y_log": axes.get_yscale() == "log",
        "x_label": axes.get_xlabel(),
    }


def _for_page(svg: str, name: str, title: str) -> str:
    """Replaces the colors by the page's, keeps only ids that are referred to, and gives the element a name."""
    referred = {match[1] for match in _REFERENCE.findall(svg)}
    svg = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in referred else _as_data(match[1]), svg)
    svg = _REFERENCE.sub(lambda match: f"{match[1]}{name}-{match[2]}", svg)
    for color, variable in COLORS.items():
        svg = svg.replace(color, variable)
    svg = re.sub(r"font: ?(?:\w+ )*(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", svg)
    box = re.search(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', svg)
    assert box is not None
    opening = f'<svg viewBox="{box[1]}" role="img" aria-label="{html.escape(title)}">'
    svg = opening + svg[box.end() :]
    return re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)


def _as_data(identifier: str) -> str:
    """Ids that a drawing function has set stay readable, as an attribute that may repeat on the page."""
    return f' data-mark="{identifier}"' if ":" in identifier else ""
