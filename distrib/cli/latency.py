"""`distrib latency`: measures the latency of a trained model on the devices of this machine."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Literal

import typer

from distrib.cli.options import JsonOption, RunArgument, RunsDirOption
from distrib.cli.terminal import YELLOW, colored
from distrib.cli.trained import ThreadsOption, WeightsOption, load_trained
from distrib.errors import JobError


def latency(
    run: RunArgument,
    *,
    batch: Annotated[str, typer.Option("--batch", metavar="N,N,…", help="Batch sizes to measure.")] = "1,8,64",
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option("--device", metavar="auto|cpu|cuda", help="Device to measure; auto: all of them."),
    ] = "auto",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too.")] = True,
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="Measuring time per row.")] = 1.0,
    threads: ThreadsOption = None,
    weights: WeightsOption = "last",
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the latency of a trained model."""
    batch_sizes = _batch_sizes(batch)
    trained = load_trained(run, weights, runs_dir)

    from distrib.inference.latency import as_data, measure
    from distrib.inference.predictor import choose_device
    from distrib.launch.devices import usable_cpus
    from distrib.observe.terminal.latency_table import print_latencies

    if choose_device(device).type == "cpu" and device == "auto":
        print(colored("this machine has no GPU: measuring only the CPU", YELLOW, sys.stderr), file=sys.stderr)
    rows = []
    measured = measure(
        trained,
        device=device,
        batch_sizes=batch_sizes,
        modes=("eager", "compile") if compiled else ("eager",),
        seconds=seconds,
        num_threads=threads or usable_cpus(),
    )
    for row in measured:
        rows.append(row)
        if sys.stderr.isatty():
            print(f"\r\x1b[K{row.device}, {row.mode}, batch {row.batch_size} done", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    data = as_data(rows)
    if as_json:
        print(json.dumps({"run": trained.run_id, "weights": trained.weights.label, "rows": data}))
    else:
        print_latencies(data)


def _batch_sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise JobError(f"'{text}' is not a list of batch sizes; write 1,8,64", field="--batch")
    return [int(part) for part in parts]
