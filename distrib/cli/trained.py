"""What the verbs that use a trained model share: the run and weights that are meant, and their options."""

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
    typer.Option("--weights", metavar="last|best|CHECKPOINT", help="Which weights; a checkpoint by its step or name."),
]
InferenceDeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", metavar="auto|cpu|cuda", help="What computes; auto: a GPU where there is one."),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Torch threads on the CPU; all CPUs by default.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]


def load_trained(run: str, weights: str, runs_dir: str | None) -> TrainedModel:
    """The trained model that the command line names; says on stderr what should be known about its weights.

    Raises:
        JobError: There is no such run, or it has no such weights.
    """
    from distrib.inference.trained_model import open_trained
    from distrib.runs.find import find_run

    trained = open_trained(find_run(run, runs_location(runs_dir)), weights)
    if trained.weights.notice:
        print(colored(trained.weights.notice, YELLOW, sys.stderr), file=sys.stderr)
    return trained
