"""`distrib scale`: measures a job at several numbers of workers, predicts it for more, and compares experiments."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distrib.cli.flags import with_flags
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

JobOption = Annotated[str | None, typer.Argument(metavar="JOB", help="The job's YAML file.", show_default=False)]
SizesOption = Annotated[str | None, typer.Option("--workers", metavar="N,N,…", help="Numbers of workers: 1,2,4.")]
ModeOption = Annotated[
    Literal["strong", "weak"],
    typer.Option("--mode", metavar="strong|weak", help="Keep the global batch, or multiply it by the workers."),
]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Steps to measure in each run.")]
WarmupOption = Annotated[int, typer.Option("--warmup", min=1, help="Steps to run before measuring.")]
RepeatsOption = Annotated[int, typer.Option("--repeats", min=1, help="Runs at each number of workers.")]
OutOption = Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder for the results.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the experiment in --out.")]
PredictOption = Annotated[
    str | None, typer.Option("--predict", metavar="FILE", help="Predict --workers from a scale.json; starts nothing.")
]
LinkOption = Annotated[
    str | None, typer.Option("--link", metavar="RATE", help="With --predict: the link bandwidth, such as 400gbit.")
]
CompareOption = Annotated[
    tuple[str, str] | None,
    typer.Option("--compare", metavar="FILE FILE", help="Compare two scale.json files; starts nothing."),
]


def scale(
    job: JobOption = None,
    *,
    workers: SizesOption = None,
    mode: ModeOption = "strong",
    steps: StepsOption = 50,
    warmup: WarmupOption = 10,
    repeats: RepeatsOption = 3,
    sets: SetOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    on: OnOption = None,
    address: AddressOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    prediction: PredictOption = None,
    link: LinkOption = None,
    comparison: CompareOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how a job scales and why, and predict it for more workers."""
    if sum(given is not None for given in (job, prediction, comparison)) != 1:
        raise JobError("give one of: a JOB to measure, --predict FILE, or --compare FILE FILE")
    if comparison is not None:
        return _compare(*comparison, as_json=as_json)
    from distrib.scale.experiment import Design, Experiment, parse_workers

    if workers is None:
        raise JobError("give the numbers of workers, as in --workers 1,2,4", field="--workers")
    sizes = parse_workers(workers)
    if prediction is not None:
        return _predict(prediction, sizes, link, as_json=as_json)
    if resume and out is None:
        raise JobError("--resume needs --out, the folder of the experiment to continue", field="--resume")
    assert job is not None
    loaded = load_job(job, sets, workers=None, device=device, runs_dir=runs_dir)
    launcher, cluster = choose_launcher(on, address)
    folder = _folder(loaded, out, is_on_cluster=cluster is not None)
    design = Design(sizes, mode, steps, warmup, repeats)
    stream = sys.stderr if as_json else sys.stdout

    def notice(message: str) -> None:
        print(with_flags(message), file=stream, flush=True)

    return _measure(Experiment(loaded, design, launcher, cluster, folder, notice), is_resumed=resume, as_json=as_json)


def _measure(experiment: Experiment, *, is_resumed: bool, as_json: bool) -> None:
    from distrib.observe.format import short_path
    from distrib.observe.page.svg import ReportLibraryMissingError
    from distrib.scale.report import REPORT_FILE, make_report
    from distrib.scale.result import RESULT_FILE
    from distrib.scale.tables import result_lines

    experiment.check()
    result = experiment.run(is_resumed=is_resumed)
    for line in ("", *result_lines(result), "", f"results {short_path(experiment.folder / RESULT_FILE)}"):
        experiment.notice(line)
    try:
        (experiment.folder / REPORT_FILE).write_text(make_report(result), encoding="utf-8")
        experiment.notice(f"report  {short_path(experiment.folder / REPORT_FILE)}")
    except ReportLibraryMissingError as error:
        experiment.notice(f"{REPORT_FILE} is not written: {error}; then repeat the command with `resume`")
    if as_json:
        print(json.dumps(result.as_data()))
    if not result.measured:
        raise TrainingFailedError("no size could be measured; the reasons are above, the logs in the folder")


def _predict(file: str, sizes: tuple[int, ...], link: str | None, *, as_json: bool) -> None:
    from distrib.scale.model import fit_model
    from distrib.scale.prediction import parse_link, predict
    from distrib.scale.result import read_result
    from distrib.scale.tables import prediction_lines

    model = fit_model(read_result(file))
    if link is not None:
        model = model.with_bandwidth(parse_link(link))
    predictions = predict(model, sizes)
    if not as_json:
        print(*prediction_lines(predictions, model), sep="\n")
        return
    data = {
        "predictions": [asdict(row) for row in predictions],
        "warning": model.warning,
        "residuals": dict(model.residuals),
        "alpha_seconds": model.links.inter.alpha_seconds,
        "beta_seconds_per_byte": model.links.inter.beta_seconds_per_byte,
        "assumptions": model.assumptions,
    }
    print(json.dumps(data))


def _compare(first: str, second: str, *, as_json: bool) -> None:
    from distrib.scale.result import read_result
    from distrib.scale.tables import comparison_lines

    results = read_result(first), read_result(second)
    if as_json:
        sizes = [result.as_data()["sizes"] for result in results]
        print(json.dumps(dict(zip((first, second), sizes, strict=True))))
    else:
        print(*comparison_lines(*results, ("a", "b")), sep="\n")


def _folder(job: Job, out: str | None, *, is_on_cluster: bool) -> Path:
    """The folder of the results: --out, or a new folder beside the job's runs.

    Raises:
        JobError: It is on an object store, or a relative path that means another folder on each host.
    """
    folder = Path(out or job.spec.storage).expanduser()
    field = "storage" if out is None else "--out"
    if "://" in str(out or job.spec.storage):
        raise JobError("experiments need a folder, not an object store; name one with --out", field=field)
    if is_on_cluster and not folder.is_absolute():
        raise JobError(
            f"'{folder}' is relative, so it means another folder on each host of a cluster; give the full path of a "
            "shared folder with --out",
            field=field,
        )
    name = "" if out is not None else f"{job.name}-scale-{datetime.now():%Y%m%d-%H%M%S}"
    return folder.absolute() / name
