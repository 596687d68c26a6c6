"""Lets a rank's stacks be written to its log from outside, whatever the rank does, even inside native code."""

from __future__ import annotations

import faulthandler
import signal
import sys

STACK_SIGNAL = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""A signal that other programs hardly use."""


def write_stacks_on_signal() -> None:
    """From now on `STACK_SIGNAL` writes the Python stacks of all threads to standard error; the process continues."""
    faulthandler.enable(sys.stderr)
    faulthandler.register(STACK_SIGNAL, sys.stderr, all_threads=True)
