"""`distrib run`: trains a job and prints its result."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from distrib.cli.options import (
    AddressOption,
    DeviceOption,
    ExtendOption,
    FreshOption,
    JsonOption,
    OnOption,
    RecordSamplesOption,
    RunIdOption,
    RunsDirOption,
    SetOption,
    WorkersOption,
    check_run_id,
    choose_launcher,
    make_overrides,
)
from distrib.cli.script import (
    ArgumentsArgument,
    MaxRestartsOption,
    ModuleOption,
    RunnableArgument,
    check_training_options,
    load_runnable,
)
from distrib.cli.terminal import GREEN, RED, YELLOW, abandon, colored
from distrib.errors import DistribError, StoppedError, TrainingFailedError

if TYPE_CHECKING:
    from distrib.observe.observer import Observer
    from distrib.runs.run import Run

EXIT_CODES = """\b
Exit codes:
  0    finished
  1    the training failed
  2    the job or the command line is wrong
  3    the workers cannot be started, or another process holds the run
  130  stopped; the command that continues is printed
"""


def run(
    job: RunnableArgument = None,
    arguments: ArgumentsArgument = None,
    *,
    module: ModuleOption = None,
    max_restarts: MaxRestartsOption = None,
    sets: SetOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    run_id: RunIdOption = None,
    on: OnOption = None,
    address: AddressOption = None,
    fresh: FreshOption = False,
    extend: ExtendOption = False,
    record_samples: RecordSamplesOption = False,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", help="Serve metrics for Prometheus at 127.0.0.1:PORT."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a job, or run a script on every worker as torchrun does."""
    _receive_secrets()
    overrides = make_overrides(sets, workers=workers, device=device, runs_dir=runs_dir)
    if max_restarts is not None:
        overrides.append(f"failures.max_restarts={max_restarts}")
    loaded = load_runnable(job, module, arguments or [], overrides)
    check_training_options(loaded, extend=extend)
    check_run_id(run_id)
    launcher, cluster_address = choose_launcher(on, address)
    stream = sys.stderr if as_json else sys.stdout

    import psutil

    from distrib.cli.flags import FlagObservers
    from distrib.doctor.preflight import check_this_machine
    from distrib.launch.options import RunOptions
    from distrib.launch.start import run as train
    from distrib.observe.summary import summarize
    from distrib.observe.terminal.progress import make_progress

    options = RunOptions(
        launcher=launcher,
        address=cluster_address,
        run_id=run_id,
        fresh=fresh,
        extend=extend,
        record_samples=record_samples,
        started=psutil.Process().create_time(),
    )
    exit_code = 0
    with make_progress(stream.isatty(), stream) as progress, _metrics(metrics_port, stream) as metrics:
        if cluster_address is None:
            for warning in check_this_machine(loaded):
                progress.notice(f"{warning.message}; {warning.fix}")
        try:
            train(loaded, options, observers=[FlagObservers([progress, *metrics])])
        except (TrainingFailedError, StoppedError) as error:
            if progress.finished_run is None:
                raise
            exit_code = error.exit_code
    if progress.finished_run is None:
        raise DistribError("the training ended without a result; this is a bug in distrib")
    print_summary(progress.finished_run, stream)
    if as_json:
        _print_json(summarize(progress.finished_run, exit_code))
    raise typer.Exit(exit_code)


def _receive_secrets() -> None:
    """In a job that `submit` sent: takes its secrets before the job's file is read, which may name them."""
    if "DISTRIB_SECRETS" in os.environ:
        from distrib.launch.ray.access.job_secrets import receive_secrets

        receive_secrets()


@contextmanager
def _metrics(port: int | None, stream: TextIO) -> Iterator[list[Observer]]:
    """What serves the run's metrics, if a port is given."""
    if port is None:
        yield []
        return
    from distrib.observe.metrics.prometheus import PrometheusServer

    server = PrometheusServer(port)
    print(f"metrics at {server.url}", file=stream, flush=True)
    try:
        yield [server]
    finally:
        server.close()


def _print_json(result: dict[str, Any]) -> None:
    try:
        print(json.dumps(result), flush=True)
    except (OSError, ValueError):
        abandon(sys.stdout)


def print_summary(run: Run, stream: TextIO) -> None:
    """Prints the result of a run; if the reader has disconnected, the exit code is still that of the training."""
    from distrib.observe.summary import summary_lines

    headline, *rest = summary_lines(run, shutil.get_terminal_size().columns if stream.isatty() else None)
    color = {"finished": GREEN, "stopped": YELLOW}.get(run.status, RED)
    try:
        print("", colored(headline, color, stream), *rest, sep="\n", file=stream, flush=True)
    except (OSError, ValueError):
        abandon(stream)
