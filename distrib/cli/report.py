"""`distrib report`: one or several runs as a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distrib.cli.options import RunsDirOption, find_run, no_run, run_ids
from distrib.errors import JobError


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="The runs' ids, folders or URLs.", autocompletion=run_ids)
    ],
    *,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE.html", help="Where to write it; by default RUN.html here.")
    ] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Write a page about a run, or about several overlaid: results, charts, errors, ranks, provenance, job."""
    found = []
    for name in runs:
        run = find_run(name, runs_dir)
        if run is None:
            raise no_run(name)
        found.append(run)

    from distrib.observe.format import num_bytes, short_path
    from distrib.observe.report.report import make_report

    path = Path(out or ("-vs-".join(run.id for run in found[:2]) + ".html")).expanduser()
    text = make_report(found)
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror}", field="--out") from None
    print(f"{short_path(path.absolute())}  {num_bytes(len(text.encode(errors='replace')))}")
