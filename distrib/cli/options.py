"""Options shared by several commands, and the job that they describe."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from distrib.errors import JobError
from distrib.job.launcher_names import LauncherName

if TYPE_CHECKING:
    from distrib.job.reader import Job
    from distrib.launch.job_server import JobServer, SubmittedJob
    from distrib.runs.run import Run

RUNS_DIR_VARIABLE = "DISTRIB_RUNS_DIR"
ADDRESS_VARIABLE = "RAY_ADDRESS"
JOB_SERVER_VARIABLE = "RAY_API_SERVER_ADDRESS"

SCRIPT_SUFFIXES = (".py", ".pyw", ".pyc")
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's YAML file.", show_default=False)]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the job; repeatable.")
]
WorkersOption = Annotated[str | None, typer.Option("--workers", metavar="N|MIN..MAX", help="Number of workers.")]
DeviceOption = Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Device to train on.")]
RunsDirOption = Annotated[
    str | None,
    typer.Option("--runs-dir", metavar="DIR", help=f"Folder or URL for runs; also ${RUNS_DIR_VARIABLE}."),
]
RunIdOption = Annotated[
    str | None, typer.Option("--run-id", metavar="ID", help="Id of the run; by default the job's name and the time.")
]
OnOption = Annotated[
    LauncherName | None,
    typer.Option(
        "--on", metavar="|".join(get_args(LauncherName)), help="Train in local processes, or on a local Ray cluster."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help=f"Train on this Ray cluster; also ${ADDRESS_VARIABLE}."),
]
JobServerOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="URL", help=f"The cluster's job server, http://HOST:8265; also ${JOB_SERVER_VARIABLE}."
    ),
]


def run_ids(incomplete: str) -> list[str]:
    """The runs on this machine whose id begins as typed, for shell completion."""
    folder = Path(runs_location(None))
    try:
        return sorted(path.name for path in folder.iterdir() if path.name.startswith(incomplete) and path.is_dir())
    except OSError:
        return []


RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The run's id, folder or URL.", show_default=False, autocompletion=run_ids),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Start a new run beside an existing one, as ID-2.")]
ExtendOption = Annotated[bool, typer.Option("--extend", help="Continue a finished run for more epochs or steps.")]
RecordSamplesOption = Annotated[bool, typer.Option("--record-samples", help="Record the sample ids of each step.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.", show_default=False)
]


def load_job(
    path: str, sets: list[str] | None, *, workers: str | None, device: str | None, runs_dir: str | None
) -> Job:
    """Reads a job and applies the command line: `--set` in order, then the other options.

    Raises:
        JobError: The job or an option is wrong.
    """
    from distrib.job.reader import Job, is_mapping_with

    if path.endswith(SCRIPT_SUFFIXES) or is_mapping_with(path, "script"):
        raise JobError(
            "a script, which only `distrib run` and `distrib submit` take; name a job's YAML file", file=path
        )
    return Job.load(path, make_overrides(sets, workers=workers, device=device, runs_dir=runs_dir))


def make_overrides(
    sets: list[str] | None, *, workers: str | None = None, device: str | None = None, runs_dir: str | None = None
) -> list[str]:
    """The options as overrides of the job's fields; later ones take precedence.

    The runs folder of the environment comes first: it replaces the one in the file, but not the command line's.
    """
    from_environment = os.environ.get(RUNS_DIR_VARIABLE)
    overrides = [_storage(from_environment)] if from_environment else []
    overrides += sets or []
    if workers is not None:
        overrides.append(f"resources.workers={_workers(workers)}")
    if device is not None:
        overrides.append(f"resources.device={json.dumps(device)}")
    if runs_dir is not None:
        overrides.append(_storage(runs_dir))
    return overrides


def runs_location(runs_dir: str | None) -> str:
    """The location of runs for commands without a job: the option, the environment or `runs`; a path or a URL."""
    chosen = runs_dir or os.environ.get(RUNS_DIR_VARIABLE) or "runs"
    return chosen if "://" in chosen else os.path.expanduser(chosen)


def choose_launcher(on: LauncherName | None, address: str | None) -> tuple[LauncherName, str | None]:
    """What trains, and the address of the cluster to join, if any.

    An option wins over the environment, where Ray puts the address of the cluster into the jobs that it runs.

    Raises:
        JobError: Both options are given.
    """
    if on is not None and address is not None:
        raise JobError("--on and --address exclude each other; --address alone trains on that cluster", field="--on")
    if on is not None:
        return on, None
    address = address or os.environ.get(ADDRESS_VARIABLE) or None
    from distrib.launch.registry import default_launcher

    return default_launcher(address), address


def job_server_address(address: str | None, *, is_needed: bool = True) -> str:
    """The URL of the cluster's job server: the option or, as for Ray's own commands, the environment.

    Raises:
        JobError: It is needed and not given.
    """
    named = os.environ.get(ADDRESS_VARIABLE, "")
    found = address or os.environ.get(JOB_SERVER_VARIABLE) or (named if named.startswith("http") else "")
    if not found and is_needed:
        raise JobError(
            f"name the cluster with --address http://HOST:8265 or the environment variable {JOB_SERVER_VARIABLE}",
            field="--address",
        )
    return found


def server_of(address: str | None) -> JobServer | None:
    """The requested job server, or None."""
    url = job_server_address(address, is_needed=False)
    if not url:
        return None
    from distrib.launch.registry import connect_job_server

    return connect_job_server(url)


def find_job(run: str, address: str | None) -> tuple[JobServer, SubmittedJob] | None:
    """The Ray job of a run and its server; None if no cluster is named, or if it has no such run.

    Raises:
        LaunchError: The cluster does not answer.
    """
    server = server_of(address)
    if server is None:
        return None
    try:
        return server, server.find(Path(run).name)
    except JobError:
        return None


def find_run(run: str, runs_dir: str | None) -> Run | None:
    """The run with that id, folder or URL; None if there is none."""
    from distrib.runs.find import NoRunError
    from distrib.runs.find import find_run as find

    try:
        return find(run, runs_location(runs_dir))
    except NoRunError:
        return None


def no_run(run: str) -> JobError:
    """The error for a run that is neither in the runs folder nor on a cluster."""
    return JobError(f"there is no run {run}; distrib list shows the runs, --runs-dir selects another folder")


def check_run_id(run_id: str | None) -> str | None:
    """Checks that `run_id` is a valid folder name and returns it.

    Raises:
        JobError: It is not.
    """
    from distrib.job.spec.patterns import is_run_name

    if run_id is not None and not is_run_name(run_id):
        rule = "use up to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise JobError(f"{run_id!r} cannot name a run; {rule}", field="--run-id")
    return run_id


def _workers(text: str) -> str:
    """`4` unchanged, `2..8` as the flow mapping of the spec."""
    match = re.fullmatch(r"([1-9]\d*)(?:\.\.([1-9]\d*))?", text, re.ASCII)
    if match is None:
        raise JobError(
            f"{text!r} is not a number of workers; write 4, or 2..8 for at least 2 and at most 8", field="--workers"
        )
    low, high = match.groups()
    return low if high is None else f"{{min: {low}, max: {high}}}"


def _storage(folder: str) -> str:
    return f"storage={json.dumps(os.path.expanduser(folder), ensure_ascii=False)}"
