"""`python -m cluster.lab`: handles interrupts from the start, even while the subcommands are imported."""

import sys

from cluster.lab.interrupts import raise_interrupts


def main() -> None:
    """Runs the command line and exits with its code."""
    raise_interrupts()
    try:
        from cluster.lab.cli import run_command_line
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        sys.exit(130)
    run_command_line()


if __name__ == "__main__":
    main()
