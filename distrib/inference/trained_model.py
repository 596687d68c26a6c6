"""The trained model of a run: chooses the weights and builds the model with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.errors import InferenceError, JobError
from distrib.job.reader import Job, is_mapping_with
from distrib.job.target import add_import_paths, bind, find_callable
from distrib.runs.checkpoints import CheckpointFolder, DamagedError
from distrib.runs.run import Run
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints

if TYPE_CHECKING:
    from torch import nn

Predict = Callable[["nn.Module", Any], Any]


def notify_on_stderr(message: str) -> None:
    """Prints a message that is not part of the result."""
    print(message, file=sys.stderr)


@dataclass(frozen=True)
class Weights:
    """Which weights to load.

    Attributes:
        label: A description: `the final weights`, `checkpoint step-00000100-a0`.
        file: The safetensors file, if the weights are in one.
        checkpoints: Otherwise the checkpoints to try, in order of preference.
        notice: What the user should know about this choice, if anything.
    """

    label: str
    file: Path | None = None
    checkpoints: tuple[CheckpointFolder, ...] = ()
    notice: str | None = None


@dataclass(frozen=True)
class TrainedModel:
    """Everything needed to build the model of a run in any process; picklable.

    Attributes:
        run_id: The run's id.
        job: The job as the run used it.
        weights: The weights to load.
        signature: The signature of its training batches as stored in run.json; None if unknown.
        working_directory: The first folder to search for the job's modules.
        spec_folder: The folder of the job's file when the run started, if known; its modules may still be there.
    """

    run_id: str
    job: Job
    weights: Weights
    signature: Any
    working_directory: Path
    spec_folder: Path | None

    def add_import_paths(self) -> None:
        """Makes the job's modules importable."""
        add_import_paths(self.job, self.working_directory)
        folder = self.spec_folder
        if folder is not None and folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(sys.path.index(str(self.job.folder)) + 1, str(folder))

    def build(self, notify: Callable[[str], None] = notify_on_stderr) -> nn.Module:
        """The model with its weights, on CPU, in evaluation mode and without gradients.

        Args:
            notify: Receives messages about checkpoints that were skipped.

        Raises:
            JobError: The job's model cannot be imported or called.
            InferenceError: The weights cannot be read or do not fit.
        """
        from distrib.train.objective.task import build_model

        self.add_import_paths()
        model = build_model(self.job.spec, find_callable(self.job, "model", self.job.spec.model))
        if self.weights.file is not None:
            _load_file(model, self.weights.file)
        else:
            _load_checkpoint(model, self.weights.checkpoints, notify)
        return model.eval().requires_grad_(False)

    def predict(self) -> Predict | None:
        """The job's `predict` bound with its args, or None."""
        target = self.job.spec.predict
        return None if target is None else bind(self.job, "predict", target, num_positional=2)


def open_trained(run: Run, weights: str = "last") -> TrainedModel:
    """Finds the job and weights of a run, without importing torch or the job's modules.

    Args:
        run: The run.
        weights: `last`, `best`, `ema`, or a checkpoint by its name, its step or its folder.

    Raises:
        JobError: The folder is not a run, or it has no such weights.
    """
    record = run.record
    if is_mapping_with(run.job_file, "script"):
        raise JobError(
            f"run {run.id} is of a script, whose model only its own code knows; load with that code what it has saved"
        )
    spec_folder = (record.get("provenance") or {}).get("spec_folder")
    return TrainedModel(
        run_id=run.id,
        job=Job.load(run.job_file),
        weights=_choose(run, weights),
        signature=record.get("input_signature"),
        working_directory=Path.cwd(),
        spec_folder=None if spec_folder is None else Path(spec_folder),
    )


def _choose(run: Run, choice: str) -> Weights:
    status = run.status
    checkpoints = tuple(run.checkpoints.list())
    if choice == "best":
        return _best(run, status)
    if choice == "ema":
        return _ema(run)
    if choice != "last":
        return _named_checkpoint(run, choice, checkpoints)
    if status == "finished" and run.weights.exists():
        return Weights("the final weights", file=run.weights)
    if checkpoints:
        newest = checkpoints[0]
        why = "finished, but its model.safetensors is missing" if status == "finished" else _progress(run, status)
        notice = f"{run.id} is {why}; taking the weights of its newest checkpoint, of step {newest.step}"
        return Weights(f"checkpoint {newest.name}", checkpoints=_fetched(run, checkpoints), notice=notice)
    if run.weights.exists():
        notice = f"{run.id} is {_progress(run, status)} and has no checkpoint; taking its model.safetensors"
        return Weights("model.safetensors", file=run.weights, notice=notice)
    raise JobError(
        f"{run.id} has no weights: it is {_progress(run, status)}, and no checkpoint of it was committed; "
        "wait for the first one, or train it again"
    )


def _ema(run: Run) -> Weights:
    file = run.ema_weights
    if not file.exists():
        raise JobError(
            f"{run.id} has no averaged weights; they are kept where the job has the callback distrib.callbacks:Ema, "
            "once it has finished; use `weights` last",
            field="`weights`",
        )
    return Weights("the averaged weights", file=file)


def _best(run: Run, status: str) -> Weights:
    file = run.best_weights
    if not file.exists():
        raise JobError(
            f"{run.id} has no best weights; they are kept where the job has checkpoint.best, from the first "
            "evaluation on; use `weights` last",
            field="`weights`",
        )
    notice = None if status == "finished" else f"{run.id} is {_progress(run, status)}; taking the best weights so far"
    return Weights("the best weights", file=file, notice=notice)


def _named_checkpoint(run: Run, choice: str, checkpoints: tuple[CheckpointFolder, ...]) -> Weights:
    path = Path(choice).expanduser()
    if path.name.startswith("step-") and path.is_dir():
        checkpoints = (*checkpoints, *FolderCheckpoints(path.parent).list())
        found = [folder for folder in checkpoints if folder.path.resolve() == path.resolve()]
    else:
        found = [folder for folder in checkpoints if choice in (folder.name, str(folder.step))]
    if not found:
        names = ", ".join(folder.name for folder in checkpoints) or "none"
        raise JobError(
            f"'{choice}' is neither last, best, ema nor a committed checkpoint of {run.id}, which has: {names}",
            field="`weights`",
        )
    return Weights(f"checkpoint {found[0].name}", checkpoints=_fetched(run, (found[0],)))


def _fetched(run: Run, checkpoints: tuple[CheckpointFolder, ...]) -> tuple[CheckpointFolder, ...]:
    """The same checkpoints, newest first, with the first whose files are complete on this host."""
    for folder in checkpoints:
        try:
            run.checkpoints.fetch(folder)
        except DamagedError:
            continue  # it is reported when it is loaded
        break
    return checkpoints


def _progress(run: Run, status: str) -> str:
    done, planned = run.steps
    of = "" if planned is None else f" of {planned}"
    return f"{'still ' if status == 'running' else ''}{status} at step {done}{of}"


def _load_file(model: nn.Module, path: Path) -> None:
    from distrib.train.checkpoint.weights import WeightsError, load_weights

    try:
        load_weights(model, path, makes_buffers=True)
    except WeightsError as error:
        advice = "use other `weights` (best, last or a checkpoint), or train again"
        raise InferenceError(f"{str(error).removeprefix('model.weights: ')}; {advice}") from None


def _load_checkpoint(
    model: nn.Module, checkpoints: tuple[CheckpointFolder, ...], notify: Callable[[str], None]
) -> None:
    """Loads the first checkpoint that verifies."""
    from distrib.train.checkpoint.restore import load_model

    problems = []
    for folder in checkpoints:
        try:
            load_model(folder, model)
        except DamagedError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            notify(f"damaged, skipped: {problem}")
        if problems:
            notify(f"using the weights of step {folder.step}")
        return
    raise InferenceError("no checkpoint can be read:\n" + "\n".join(f"  {problem}" for problem in problems))
