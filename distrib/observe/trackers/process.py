"""The process that feeds one tracker from the run's metrics.jsonl: `python -m distrib.observe.trackers.process`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from distrib.observe.trackers.registry import make_tracker
from distrib.observe.trackers.tracker import TrackedRun
from distrib.runs.events import EventTail
from distrib.runs.files.atomic import atomic_write

_POLL_SECONDS = 0.2
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_SAVE_SECONDS = 0.2
_NICENESS = 10  # the ranks come first
_END_SECONDS = 60.0
"""How long after the end of a run a tracker may still be fed."""


@dataclass(frozen=True)
class FeedConfig:
    """What the launcher passes to this process, as one line of JSON.

    Attributes:
        target: The tracker's name or target.
        args: Its args.
        run: The fields of the `TrackedRun`.
        events: The file of events.
        position: The file that counts the events that the tracker has received.
        import_paths: `sys.path` of the launcher.
    """

    target: str
    args: dict[str, Any]
    run: dict[str, Any]
    events: str
    position: str
    import_paths: list[str]


class TrackerFeed:
    """Feeds one tracker until the run has ended.

    Args:
        config: What to feed, and from where.
        launcher: The launcher's lines: `finish STATUS` at the end; its own end means that it has died.
        report: Receives messages for the launcher.
    """

    def __init__(self, config: FeedConfig, launcher: TextIO, report: Callable[[dict[str, Any]], None]) -> None:
        self._config = config
        self._report = report
        self._run = TrackedRun(**{**config.run, "folder": Path(config.run["folder"])})
        self._status: str | None = None
        self._deadline = float("inf")
        self._position = _read_position(Path(config.position))
        self._saved = self._position, 0.0
        self._num_failures = 0
        self._tracker: Any = None
        threading.Thread(target=self._listen, args=(launcher,), daemon=True).start()

    def run(self) -> None:
        """Feeds the tracker; returns once it has everything, or a minute after the end of the run."""
        if not self._try(self._start):
            return
        tail, number = EventTail(Path(self._config.events)), 0
        while True:
            is_last = self._status is not None  # before the poll: what was written until then is in the file
            for event in tail.poll():
                number += 1
                if number > self._position and not self._try(partial(self._call, "log", event)):
                    return
                self._position = max(number, self._position)
                self._save_position(_SAVE_SECONDS)
            self._save_position(0.0)
            if is_last:
                break
            time.sleep(_POLL_SECONDS)
        self._try(partial(self._call, "finish", self._status))

    def _start(self) -> None:
        self._tracker = make_tracker(self._config.target, self._config.args)
        self._call("start", self._run)

    def _call(self, method: str, argument: Any) -> None:
        """Calls a method of the tracker, if it has it."""
        function = getattr(self._tracker, method, None)
        if function is not None:
            function(argument)

    def _try(self, call: Callable[[], None]) -> bool:
        """Repeats a call until it succeeds; returns whether it has before the deadline."""
        while True:
            try:
                call()
            except Exception as error:
                self._num_failures += 1
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                if self._num_failures == 1:
                    self._report({"problem": f"{type(error).__name__}: {error}".partition("\n")[0]})
                if not self._wait(_RETRY_SECONDS[min(self._num_failures, len(_RETRY_SECONDS)) - 1]):
                    return False
            else:
                if self._num_failures:
                    self._report({"recovered": True})
                self._num_failures = 0
                return True

    def _wait(self, seconds: float) -> bool:
        """Waits before a repetition, less long once the run has ended; returns whether there is time for another."""
        end = time.monotonic() + seconds
        while time.monotonic() < min(end, self._deadline):
            if self._status is not None and end - time.monotonic() > _RETRY_SECONDS[2]:
                break
            time.sleep(_POLL_SECONDS)
        return time.monotonic() < self._deadline

    def _save_position(self, interval_seconds: float) -> None:
        """Writes how far the tracker is, unless that was done less than an interval ago."""
        now = time.monotonic()
        if self._saved[0] == self._position or now - self._saved[1] < interval_seconds:
            return
        self._saved = self._position, now
        file = Path(self._config.position)
        with suppress(OSError):  # on a full disk; the next call tries again
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, json.dumps({"events": self._position}), is_durable=False)
        self._report({"events": self._position})

    def _listen(self, launcher: TextIO) -> None:
        line = launcher.readline().split()
        self._deadline = time.monotonic() + _END_SECONDS
        self._status = line[1] if len(line) == 2 and line[0] == "finish" else "failed"
        time.sleep(_END_SECONDS)
        os._exit(1)  # the tracker blocks


def _read_position(file: Path) -> int:
    try:
        return int(json.loads(file.read_bytes())["events"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def main() -> None:
    """Reads the config, then feeds the tracker; a message for the launcher is one line of JSON on stdout."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the run reaches it through the launcher
    os.nice(_NICENESS)
    messages = os.fdopen(os.dup(1), "w", buffering=1, errors="backslashreplace")
    os.dup2(2, 1)  # what trackers print goes to their log

    def report(message: dict[str, Any]) -> None:
        with suppress(OSError):  # the launcher has died
            print(json.dumps(message), file=messages, flush=True)

    config = FeedConfig(**json.loads(sys.stdin.readline()))
    sys.path[:] = config.import_paths
    TrackerFeed(config, sys.stdin, report).run()
    sys.stdout.flush()
    os._exit(0)  # threads of trackers must not keep it alive


if __name__ == "__main__":
    main()
