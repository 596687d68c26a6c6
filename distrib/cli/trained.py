"""Options and loading shared by the commands that use a trained model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distrib.cli.options import runs_location
from distrib.cli.terminal import YELLOW, colored

if TYPE_CHECKING:
    from distrib.inference.trained_model import TrainedModel

WeightsOption = Annotated[
    str,
    typer.Option("--weights", metavar="last|best|ema|CHECKPOINT", help="Weights to use; a checkpoint by step or name."),
]
InferenceDeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", metavar="auto|cpu|cuda", help="Device to compute on; auto prefers a GPU."),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Torch threads on the CPU; by default all CPUs.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def load_trained(run: str, weights: str, runs_dir: str | None) -> TrainedModel:
    """The trained model named on the command line; prints notices about its weights to stderr.

    Raises:
        JobError: There is no such run, or it has no such weights.
    """
    from distrib.inference.trained_model import open_trained
    from distrib.runs.find import find_run

    trained = open_trained(find_run(run, runs_location(runs_dir)), weights)
    if trained.weights.notice:
        print(colored(trained.weights.notice, YELLOW, sys.stderr), file=sys.stderr)
    return trained
