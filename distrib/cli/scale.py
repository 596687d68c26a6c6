"""`distrib scale`: measures a job at several numbers of workers, predicts it for more, and compares experiments."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from distrib.cli.options import (
    AddressOption,
    DeviceOption,
    JsonOption,
    OnOption,
    RunsDirOption,
    SetOption,
    choose_launcher,
    load_job,
)
from distrib.errors import JobError, TrainingFailedError

if TYPE_CHECKING:
    from distrib.job.reader import Job
    from distrib.scale.experiment import Experiment


def scale(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="The job's YAML file.", show_default=False)] = None,
    *,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N,N,…", help="The numbers of workers: 1,2,4.")
    ] = None,
    mode: Annotated[
        Literal["strong", "weak"],
        typer.Option("--mode", metavar="strong|weak", help="Keep the global batch, or multiply it by the workers."),
    ] = "strong",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to measure in each run.")] = 50,
    warmup: Annotated[int, typer.Option("--warmup", min=1, help="Steps to run before them.")] = 10,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs at each number of workers.")] = 3,
    sets: SetOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    on: OnOption = None,
    address: AddressOption = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder for the results.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the experiment in --out.")] = False,
    prediction: Annotated[
        str | None,
        typer.Option("--predict", metavar="FILE", help="Predict for --workers from a scale.json; starts nothing."),
    ] = None,
    link: Annotated[
        str | None, typer.Option("--link", metavar="RATE", help="With --predict: links of 400gbit, say.")
    ] = None,
    comparison: Annotated[
        tuple[str, str] | None,
        typer.Option("--compare", metavar="FILE FILE", help="Set two scale.json side by side; starts nothing."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how a job scales, say why, and predict it for more workers."""
    if sum(given is not None for given in (job, prediction, comparison)) != 1:
        raise JobError("give one of: a JOB to measure, --predict FILE, or --compare FILE FILE")
    if comparison is not None:
        _compare(*comparison, as_json=as_json)
        return
    if workers is None:
        raise JobError("say which numbers of workers, as in --workers 1,2,4", field="--workers")
    from distrib.scale.experiment import Design, Experiment, parse_workers

    sizes = parse_workers(workers)
    if prediction is not None:
        _predict(prediction, sizes, link, as_json=as_json)
        return
    if resume and out is None:
        raise JobError("--resume needs the --out of the experiment to go on with", field="--resume")
    assert job is not None
    stream = sys.stderr if as_json else sys.stdout
    loaded = load_job(job, sets, workers=None, device=device, runs_dir=runs_dir)
    launcher, cluster_address = choose_launcher(on, address)
    experiment = Experiment(
        job=loaded,
        design=Design(sizes, mode, steps, warmup, repeats),
        launcher=launcher,
        address=cluster_address,
        folder=_folder(loaded, out, is_on_cluster=cluster_address is not None),
        notice=lambda message: print(message, file=stream, flush=True),
    )
    experiment.check()
    _measure(experiment, stream, is_resumed=resume, as_json=as_json)


def _folder(job: Job, out: str | None, *, is_on_cluster: bool) -> Path:
    """Where the results go: --out, or a new folder beside the job's runs.

    Raises:
        JobError: It is on an object store, or means another folder on each host.
    """
    folder = Path(out or job.spec.storage).expanduser()
    field = "storage" if out is None else "--out"
    if "://" in str(out or job.spec.storage):
        raise JobError("experiments are kept in a folder, not on an object store; name one with --out", field=field)
    if is_on_cluster and not folder.is_absolute():
        raise JobError(
            f"'{folder}' is relative, and means another folder on each host of a cluster; name a shared folder by its "
            "full path with --out",
            field=field,
        )
    name = "" if out is not None else f"{job.name}-scale-{datetime.now():%Y%m%d-%H%M%S}"
    return folder.absolute() / name


def _measure(experiment: Experiment, stream: TextIO, *, is_resumed: bool, as_json: bool) -> None:
    from distrib.observe.format import place
    from distrib.scale.experiment import RESULT_FILE
    from distrib.scale.report import REPORT_FILE, ReportLibraryMissingError, make_report
    from distrib.scale.table import result_lines

    result = experiment.run(is_resumed=is_resumed)
    print("", *result_lines(result), "", sep="\n", file=stream)
    print(f"kept in {place(experiment.folder / RESULT_FILE)}", file=stream)
    try:
        (experiment.folder / REPORT_FILE).write_text(make_report(result), encoding="utf-8")
        print(f"charts  {place(experiment.folder / REPORT_FILE)}", file=stream)
    except ReportLibraryMissingError as error:
        print(error, file=stream)
    if as_json:
        print(json.dumps(result))
    if not any(row["status"] == "measured" for row in result["sizes"]):
        raise TrainingFailedError("no size could be measured; the reasons are above, the logs in the folder")


def _predict(file: str, sizes: tuple[int, ...], link: str | None, *, as_json: bool) -> None:
    from distrib.scale.experiment import read_result
    from distrib.scale.predict import make_model, parse_link, predict, with_bandwidth
    from distrib.scale.table import prediction_lines

    model = make_model(read_result(file))
    if link is not None:
        model = with_bandwidth(model, parse_link(link))
    predictions = predict(model, sizes)
    if as_json:
        found: dict[str, Any] = {
            "predictions": predictions,
            "residuals": model.residuals,
            "alpha_seconds": model.link.alpha_seconds,
            "beta_seconds_per_byte": model.link.beta_seconds_per_byte,
            "assumptions": model.notes,
        }
        print(json.dumps(found))
    else:
        print(*prediction_lines(predictions, model.notes, model.residuals), sep="\n")


def _compare(first: str, second: str, *, as_json: bool) -> None:
    from distrib.scale.experiment import read_result
    from distrib.scale.table import comparison_lines

    results = read_result(first), read_result(second)
    if as_json:
        print(json.dumps({name: one["sizes"] for name, one in zip((first, second), results, strict=True)}))
    else:
        print(*comparison_lines(*results, ("a", "b")), sep="\n")
