"""`distrib predict`: writes the outputs of a trained model for every row of a dataset to a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from distrib.cli.options import JsonOption, RunArgument, RunsDirOption
from distrib.cli.trained import ForceOption, InferenceDeviceOption, WeightsOption, load_trained


def predict(
    run: RunArgument,
    *,
    data: Annotated[
        str, typer.Option("--data", metavar="TARGET", help="Dataset, as module:attribute.", show_default=False)
    ],
    args: Annotated[
        str | None, typer.Option("--args", metavar="YAML", help="Arguments of the dataset, as in '{split: test}'.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Output file: .npy, .parquet or .jsonl.", show_default=False)
    ],
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Number of processes.")] = 1,
    weights: WeightsOption = "last",
    device: InferenceDeviceOption = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", min=1, help="Rows per forward pass; by default the job's."),
    ] = None,
    force: ForceOption = False,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict every row of a dataset and write the outputs to a file."""
    from distrib.inference.prediction.predict import PredictOptions, check_out, describe
    from distrib.inference.prediction.predict import predict as run_prediction
    from distrib.observe.summary import prediction_line
    from distrib.observe.terminal.rows import RowsProgress

    out = out.expanduser()
    check_out(out, force)
    trained = load_trained(run, weights, runs_dir)
    options = PredictOptions(workers, device, batch_size, force)
    with RowsProgress(sys.stderr) as progress:
        prediction = run_prediction(trained, data, args, out, options, progress)
    facts = describe(prediction)
    if as_json:
        print(json.dumps({"run": trained.run_id, "weights": trained.weights.label, **facts}))
    else:
        print(prediction_line(facts))
