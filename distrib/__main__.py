"""The command `distrib`: an interrupt is reported as one from the first moment, even while the verbs are imported."""

import os
import signal
import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from distrib.cli.main import main as run_command_line
    except KeyboardInterrupt:
        print("distrib: interrupted", file=sys.stderr, flush=True)
        os._exit(130)
    run_command_line()


if __name__ == "__main__":
    main()
