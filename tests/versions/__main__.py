"""`python -m tests.versions`: runs the suite with other versions, one changed at a time.

Each environment takes gigabytes and minutes to install, and is removed before the next one is made. Adds a line for
each to build/versions.md.
"""

from __future__ import annotations

import argparse
import sys

from tests.versions import table
from tests.versions.axes import all_axes
from tests.versions.environment import NotAvailableError, environment, installed_versions
from tests.versions.suite import run_suite


def main() -> int:
    """Tries the environments one after the other; 1 if a test failed in one of them."""
    arguments = parse_arguments()
    failed = [name for name in arguments.only or all_axes() if not passes(name, arguments.tests, arguments.testers)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def passes(name: str, tests: list[str], testers: int) -> bool:
    """Whether no test failed in this environment, or it is not available here."""
    versions = all_axes()[name]
    print(f"{name}: {versions}", flush=True)
    try:
        with environment(versions) as python:
            found = installed_versions(python)
            result = run_suite(python, tests, testers)
    except NotAvailableError as error:
        table.add_line(name, versions.python, versions.torch, versions.ray, f"not available: {error}")
        return True
    counts = (result.passed, result.skipped, len(result.failed), round(result.minutes))
    table.add_line(name, found["python"], found["torch"], found["ray"], ", ".join(tests), *counts)
    print("".join(f"failed: {test}\n" for test in result.failed), flush=True)
    return not result.failed


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    axes = all_axes()
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__.partition(": ")[2])
    parser.add_argument("--only", nargs="+", choices=axes, metavar="NAME", help=", ".join(axes))
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="only these; default: all")
    parser.add_argument("--testers", type=int, default=2, help="processes that run tests side by side; default: 2")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
