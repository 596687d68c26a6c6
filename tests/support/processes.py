"""Watches the processes of the machine, to find out what they show of a secret."""

import threading
import time
from contextlib import suppress
from pathlib import Path


class Watcher:
    """Records the command line and the environment of every process that lives while it watches."""

    def __init__(self):
        self._seen = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._end.set()
        self._thread.join()

    def commands_with(self, text):
        """The command lines that contain `text`."""
        return sorted({command for command, _ in self._seen.values() if text in command})

    def values_of(self, variable, *, program):
        """The values that an environment variable had in processes whose command line contains `program`."""
        prefix = f"{variable}="
        return {
            entry.removeprefix(prefix)
            for command, environment in self._seen.values()
            if program in command
            for entry in environment
            if entry.startswith(prefix)
        }

    def _watch(self):
        while not self._end.wait(0.1):
            for folder in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                    self._seen[folder.name, command] = (command, environment)


def files_with(text, *folders):
    """The files below folders that contain `text`."""
    needle, found = text.encode(), []
    for folder in folders:
        for path in Path(folder).rglob("*"):
            with suppress(OSError):
                if path.is_file() and needle in path.read_bytes():
                    found.append(str(path))
    return found


def wait_for(condition, seconds, message="waited in vain"):
    """Waits until `condition()` is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, message
        time.sleep(0.1)
    return value
