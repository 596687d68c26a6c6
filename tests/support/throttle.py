"""A process that gets little of its CPU."""

import os
import signal
import threading
import time


class Throttle(threading.Thread):
    """Stops a process for most of the time, as if other programs used its CPU."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._pid = pid
        self._is_over = threading.Event()

    def run(self):
        try:
            while not self._is_over.wait(0.05):
                os.kill(self._pid, signal.SIGSTOP)
                time.sleep(0.25)
                os.kill(self._pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # the run has ended

    def end(self):
        self._is_over.set()
        self.join()
