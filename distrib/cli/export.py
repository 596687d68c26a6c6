"""`distrib export`: writes a trained model to a file for other programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from distrib.cli.options import JsonOption, RunArgument, RunsDirOption
from distrib.cli.terminal import YELLOW, colored
from distrib.cli.trained import ForceOption, WeightsOption, load_trained


def export(
    run: RunArgument,
    *,
    file_format: Annotated[
        Literal["safetensors", "torch-export"],
        typer.Option("--format", help="The weights, or a standalone program.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Output file; by default RUN.safetensors or RUN.pt2.")
    ] = None,
    weights: WeightsOption = "last",
    force: ForceOption = False,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained model and check that it gives the same outputs."""
    from distrib.inference.export import SUFFIXES
    from distrib.inference.export import export as run_export
    from distrib.inference.new_file import check_new_file
    from distrib.observe.summary import export_line

    trained = load_trained(run, weights, runs_dir)
    out = Path(f"{trained.run_id}{SUFFIXES[file_format]}") if out is None else out.expanduser()
    check_new_file(out, force)
    exported = run_export(trained, file_format, out)
    for notice in exported.notices:
        print(colored(notice, YELLOW, sys.stderr), file=sys.stderr)
    data = {
        "run": trained.run_id,
        "weights": trained.weights.label,
        "format": file_format,
        "out": str(exported.out),
        "bytes": exported.num_bytes,
        "largest_difference": exported.largest_difference,
        "checked_batches": list(exported.checked_batches),
    }
    print(json.dumps(data) if as_json else export_line(data))
