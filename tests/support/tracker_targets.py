"""Trackers of a user: one that works, one that always raises, one that blocks, one that kills its own process once."""

import json
import os
import signal
import time
from pathlib import Path


class Recorder:
    """Appends everything that it receives to a file."""

    def __init__(self, file):
        self._file = Path(file)

    def start(self, run):
        self._note("start", [run.id, run.key, run.parameters.get("name")])

    def log(self, event):
        self._note("log", [event["event"], event["step"], event["attempt"], event.get("loss")])

    def finish(self, status):
        self._note("finish", status)

    def _note(self, kind, value):
        with self._file.open("a") as file:
            file.write(json.dumps([kind, value]) + "\n")


class Flaky(Recorder):
    """Raises at its first attempts to log, then works."""

    failures = 2

    def log(self, event):
        if Flaky.failures:
            Flaky.failures -= 1
            raise ConnectionError("the server is away")
        super().log(event)


class Broken:
    """Raises whatever happens."""

    def log(self, event):
        raise ValueError("never works")


class Blocking:
    """Takes a minute for everything."""

    def log(self, event):
        time.sleep(60)


class Dying(Recorder):
    """Kills its process once, after some events."""

    def log(self, event):
        super().log(event)
        mark = self._file.with_name("died")
        if event["step"] >= 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
