"""The moving part of a progress display: lines that fit the terminal, whatever its width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from distrib.observe.format import clock, duration, number, plural, rate, value_pairs
from distrib.observe.state import RunState
from distrib.runs.run import logged_values

MIN_BAR_WIDTH = 8
_GAP = "  "
_SPARKLINE_WIDTH = 16
_TIME_LEFT_WIDTH = len("59 min 59 s left")  # so that the bar keeps its width while the time shrinks


def render(state: RunState, now: float, width: int) -> RenderableType:
    """A bar with the position and the time left, below it the newest values, and of several ranks their times.

    Of a script without steps, the first line has what it does and for how long.

    Items that do not fit are left out whole, least important first; the bar always stays.

    Args:
        state: The state of the run.
        now: Unix seconds.
        width: Columns of the terminal.
    """
    ranks = [Text(line[:width], style="dim", no_wrap=True) for line in state.ranks.lines()]
    values = _values(state, now)
    second = [Text(_join(values, width), no_wrap=True)] if values or state.has_steps else []
    return Group(_bar_line(state, now, width), *second, *ranks)


def _bar_line(state: RunState, now: float, width: int) -> Text:
    length, step = state.length, state.step
    if not state.has_steps:
        return Text(_join([state.activity, _elapsed(state, now)], width), no_wrap=True)
    if length is None:
        return Text(_join([f"step {step:,}", _elapsed(state, now)], width), no_wrap=True)
    total = f"{length.total_steps:,}"
    steps = f"step {step:>{len(total)},}/{total}"
    epoch = f"epoch {length.epoch_of(step):>{len(str(length.num_epochs))}}/{length.num_epochs}"
    left = state.seconds_left(now)
    time_left = "" if left is None else f"{duration(left)} left".ljust(_TIME_LEFT_WIDTH)
    elapsed = _elapsed(state, now)
    share = step / length.total_steps
    for before, after in ((epoch, steps), (elapsed, time_left)), ((steps,), (elapsed, time_left)), ((steps,), ()):
        texts = [_GAP.join(part for part in parts if part) for parts in (before, after)]
        room = width - sum(len(text) + len(_GAP) for text in texts if text)
        if room >= MIN_BAR_WIDTH:
            line = Text(texts[0] + _GAP, no_wrap=True).append_text(_bar(share, room))
            return line.append(_GAP + texts[1], style="dim") if texts[1] else line
    return _bar(share, max(1, width))


def _bar(share: float, width: int) -> Text:
    """A bar that is seen without colors too: `━━━━━╸──────`."""
    halves = max(0, min(2 * width, int(share * 2 * width)))
    done = "━" * (halves // 2) + "╸" * (halves % 2)
    return Text(done, style="bar.finished" if share >= 1 else "bar.complete", no_wrap=True).append(
        "─" * (width - len(done)), style="bar.back"
    )


def _values(state: RunState, now: float) -> list[str]:
    """The items of the second line, the most important first."""
    items = []
    activity = state.activity
    if activity != "training" and state.has_steps:
        items.append(activity)
    if state.last_train is not None:
        sparkline = state.losses.draw(_SPARKLINE_WIDTH)
        items.append(f"loss {number(state.last_train.get('loss'))}" + (f" {sparkline}" if sparkline else ""))
        items += value_pairs(logged_values(state.last_train))
    if state.speed is not None:
        items.append(rate(state.speed))
    if state.last_checkpoint is not None:
        items.append(f"checkpoint {duration(max(0.0, now - state.last_checkpoint['time']))} ago")
    if state.num_restarts:
        items.append(plural(state.num_restarts, "restart"))
    if state.num_resizes:
        items.append(plural(state.num_resizes, "resize"))
    return items


def _elapsed(state: RunState, now: float) -> str:
    return clock(max(0.0, now - state.started))


def _join(items: Sequence[str], width: int) -> str:
    """As many of the items as fit in a line; the first one is cut if it is too long itself."""
    text = items[0] if items else ""
    for item in items[1:]:
        if len(text) + len(_GAP) + len(item) <= width:
            text += _GAP + item
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"
