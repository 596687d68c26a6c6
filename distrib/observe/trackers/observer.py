"""The launcher's side of a tracker: starts the process that feeds it, passes on its problems, and waits at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.errors import DistribError
from distrib.observe.observer import SilentObserver
from distrib.observe.spec_fields import spec_fields
from distrib.observe.trackers.process import FeedConfig
from distrib.observe.trackers.tensorboard import FOLDER as TENSORBOARD_FOLDER

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.job.spec.targets import TrackerTarget
    from distrib.runs.run import Run

_MAX_STARTS = 4
_RESTART_SECONDS = 5.0
_PATIENCE_SECONDS = 10.0
_LONGEST_SECONDS = 60.0
_POLL_SECONDS = 0.05


class TrackerObserver(SilentObserver):
    """Feeds one tracker of a run from a separate process, which reads the run's events from their file.

    The process runs at low priority and in its own session, so nothing that the tracker does reaches the ranks.
    If it dies, it is started again and continues after the last event that the tracker has received.

    Args:
        tracker: The tracker, as the job names it.
        notice: Receives what people should know.
    """

    def __init__(self, tracker: TrackerTarget, notice: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._notice = notice
        self._name = tracker.target.rpartition(":")[2]
        self._run: Run | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._config: FeedConfig | None = None
        self._num_starts = 0
        self._died: float | None = None
        self._partial = b""
        self._was_ended = False
        self._last_news = 0.0

    def started(self, run: Run, plan: Plan) -> None:
        """Starts the process."""
        self._run = run
        with suppress(OSError, DistribError):
            run.storage.fetch(self._position_file(run))
        self._config = self._make_config(run)
        self._start()

    def event(self, event: Mapping[str, Any]) -> None:
        """The process reads events itself; only its messages are looked at."""
        self._poll()

    def idle(self) -> None:
        """Passes on messages, and starts a process that has died again."""
        self._poll()

    def finished(self, run: Run) -> None:
        """Waits until the tracker has everything, as long as it makes progress."""
        if self._process is None:
            return
        started = self._last_news = time.monotonic()
        while not self._has_everything(run.status):
            self._read_messages()
            now = time.monotonic()
            if now - self._last_news > _PATIENCE_SECONDS or now - started > _LONGEST_SECONDS:
                self._notice(f"tracker {self._name} has not received everything yet; it is fed for another minute")
                return
            time.sleep(_POLL_SECONDS)
        self._read_messages()
        self._publish(run)

    def _has_everything(self, status: str) -> bool:
        """Sends the end to the process, again if it died and was started again; returns whether it is done."""
        assert self._process is not None
        code = self._process.poll()
        if code == 0 or (code is not None and self._num_starts >= _MAX_STARTS):
            return True
        if code is not None:
            self._report_death()
            self._start()
            self._was_ended = False
        if not self._was_ended:
            self._was_ended = True
            self._send(f"finish {status}\n")
        return False

    def _report_death(self) -> None:
        if self._num_starts == 1 and self._died is None:
            self._notice(f"the process of tracker {self._name} has died; it is started again, training continues")

    def _make_config(self, run: Run) -> FeedConfig:
        record = run.record
        started = int(float(record.get("started") or 0.0) * 1000)
        tracked = {
            "id": run.id,
            "key": f"{run.id[:100]}-{started:x}",
            "job": str(record.get("name") or run.id),
            "folder": str(run.folder),
            "location": str(run.location),
            "parameters": spec_fields(run),
        }
        return FeedConfig(
            target=self._tracker.target,
            args=self._tracker.args,
            run=tracked,
            events=str(run.layout.metrics_file),
            position=str(self._position_file(run)),
            import_paths=sys.path,
        )

    def _position_file(self, run: Run) -> Path:
        return run.folder / "trackers" / f"{self._name}.json"

    def _start(self) -> None:
        assert self._run is not None
        assert self._config is not None
        self._num_starts += 1
        self._died = None
        log = self._run.folder / "logs" / f"tracker-{self._name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as target:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "distrib.observe.trackers.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=target,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._send(json.dumps(asdict(self._config)) + "\n")

    def _send(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()

    def _poll(self) -> None:
        if self._process is None:
            return
        self._read_messages()
        if self._process.poll() is None:
            return
        now = time.monotonic()
        if self._died is None:
            self._report_death()
            self._died = now
        if self._num_starts < _MAX_STARTS and now - self._died > _RESTART_SECONDS:
            self._start()

    def _read_messages(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):
            while chunk := self._process.stdout.read(65536):
                self._partial += chunk
        *lines, self._partial = self._partial.split(b"\n")
        for line in lines:
            self._last_news = time.monotonic()
            with suppress(ValueError):
                self._show(json.loads(line))

    def _show(self, message: Mapping[str, Any]) -> None:
        if "problem" in message:
            self._notice(f"tracker {self._name}: {message['problem']}; it is tried again, training continues")
        elif "recovered" in message:
            self._notice(f"tracker {self._name} works again")

    def _publish(self, run: Run) -> None:
        """Uploads what the tracker has written into the run's folder, if the run is kept elsewhere."""
        files = [self._position_file(run)]
        if self._tracker.target == "tensorboard":
            files += sorted((run.folder / TENSORBOARD_FOLDER).glob("events.*"))
        with suppress(OSError, DistribError):
            for file in files:
                run.storage.publish(file)
