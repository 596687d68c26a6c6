"""`python -m tests.bench`: measures, prints the table, exits with 1 where a row is over its bound or failed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.bench.compare import Row
from tests.bench.families import FAMILIES
from tests.bench.process import SideFailedError
from tests.bench.sides import NotInstalledError
from tests.bench.table import as_data, as_text


def main() -> int:
    """Runs the families that were asked for, one after the other."""
    arguments = parse_arguments()
    rows = [row for name in arguments.only or FAMILIES for row in measure(name, arguments.rounds)]
    print(as_text(rows, arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_data(rows, arguments.rounds), indent=1) + "\n")
    return int(any(row.verdict in ("over", "failed") for row in rows))


def measure(name: str, rounds: int) -> list[Row]:
    """The rows of a family, or one row that says why there are none."""
    print(f"{name}:", file=sys.stderr, flush=True)
    try:
        return FAMILIES[name](rounds)
    except NotInstalledError as error:
        return [Row(name, problem=str(error), skipped=True)]
    except SideFailedError as error:
        return [Row(name, problem=str(error))]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition(": ")[2])
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each family; 5 or more for a claim")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where every measurement is written")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
