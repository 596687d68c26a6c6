"""`distrib submit`: sends a job to a Ray cluster and follows it, or hands it to a system that starts hosts for it."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from distrib.cli.deploy import choose_target, deploy
from distrib.cli.options import (
    DeviceOption,
    ExtendOption,
    FreshOption,
    JobServerOption,
    JsonOption,
    RecordSamplesOption,
    RunIdOption,
    RunsDirOption,
    SetOption,
    WorkersOption,
    check_run_id,
    job_server_address,
    make_overrides,
)
from distrib.cli.script import (
    ArgumentsArgument,
    MaxRestartsOption,
    ModuleOption,
    RunnableArgument,
    check_training_options,
    load_runnable,
    run_arguments,
)
from distrib.errors import JobError

if TYPE_CHECKING:
    from distrib.launch.job_server import JobServer, SubmittedJob

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=", re.ASCII)


def submit(
    job: RunnableArgument = None,
    arguments: ArgumentsArgument = None,
    *,
    module: ModuleOption = None,
    max_restarts: MaxRestartsOption = None,
    address: JobServerOption = None,
    sets: SetOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    run_id: RunIdOption = None,
    fresh: FreshOption = False,
    extend: ExtendOption = False,
    record_samples: RecordSamplesOption = False,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="Environment variable for the job; repeatable."),
    ] = None,
    pip: Annotated[
        list[str] | None,
        typer.Option("--pip", metavar="PACKAGE", help="Package to install with pip on every host; repeatable."),
    ] = None,
    render: Annotated[
        str | None,
        typer.Option(
            "--render",
            metavar="kuberay|slurm|compose",
            help="Send nothing: print what would be applied to train the job on a cluster started for it.",
        ),
    ] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="slurm", help="Submit the job to Slurm by sbatch.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="Setting of --render or --on, such as an image; repeatable."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the cluster has accepted the job.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a job or a script to a Ray cluster and follow it, or render a job for KubeRay, Slurm or Compose."""
    from distrib.job.script import ScriptJob

    variables = _variables(env or [])
    overrides = make_overrides(sets, workers=workers, device=device, runs_dir=runs_dir)
    if max_restarts is not None:
        overrides.append(f"failures.max_restarts={max_restarts}")
    loaded = load_runnable(job, module, arguments or [], overrides)
    check_training_options(loaded, extend=extend)
    check_run_id(run_id)

    from distrib.runs.layout import new_run_id

    run_id = run_id or new_run_id(loaded.name, datetime.now())
    options = [f"--set={text}" for text in overrides]
    chosen = {"--fresh": fresh, "--extend": extend, "--record-samples": record_samples}
    options += [option for option, is_chosen in chosen.items() if is_chosen]
    target = choose_target(render, on, address, settings)
    if target is not None:
        from distrib.deploy.deployment import make_deployment

        if isinstance(loaded, ScriptJob):
            raise loaded.error("script", "a script can be submitted to a Ray cluster, but not rendered")
        deployment = make_deployment(loaded, run_id, options, variables=variables, packages=pip or [])
        deploy(deployment, target, settings or [], is_submitted=on is not None, as_json=as_json)
        return
    url = job_server_address(address)

    from distrib.launch.job_server import Submission, check_shared_storage
    from distrib.launch.registry import connect_job_server

    check_shared_storage(loaded)
    what, own = run_arguments(loaded)
    command = ["python", "-m", "distrib", "run", *what, "--run-id", run_id, *options, *own]
    server = connect_job_server(url)
    job_id = server.submit(Submission(loaded, run_id, command, variables, pip or []))
    stream = sys.stderr if as_json else sys.stdout
    print(f"{run_id}: sent to {url}" + ("" if job_id == run_id else f" as {job_id}"), file=stream, flush=True)
    hint = f"--address {url}"
    if no_wait:
        print(f"  follow  distrib logs {run_id} -f {hint}\n  stop    distrib stop {run_id} {hint}", file=stream)
        if as_json:
            print(json.dumps({"id": run_id, "job": job_id, "status": "PENDING"}))
        return
    ended = _follow(server, job_id, run_id, hint, as_json=as_json)
    if as_json:
        print(json.dumps({"id": run_id, "job": job_id, "status": ended.status, "exit_code": ended.result}))
    raise typer.Exit(ended.result)


def _follow(server: JobServer, job_id: str, run_id: str, hint: str, *, as_json: bool) -> SubmittedJob:
    """Shows what the job prints until it ends; Ctrl-C leaves it running and says so."""
    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    try:
        ended = server.follow(job_id, write)
    except KeyboardInterrupt:
        print(
            f"\n{run_id} keeps running at {server.address}\n"
            f"  follow  distrib logs {run_id} -f {hint}\n  stop    distrib stop {run_id} {hint}",
            file=sys.stderr,
        )
        raise
    if ended.status == "FAILED" and ended.exit_code is None:
        print(f"distrib: the job's process on the cluster is gone: {ended.message}", file=sys.stderr)
        print(f"  resume  the same command with --run-id {run_id}", file=sys.stderr)
    return ended


def _variables(texts: list[str]) -> dict[str, str]:
    """`NAME=VALUE` by name; a bare NAME takes the value that it has here."""
    from distrib.launch.ray.access.token import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE

    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not _VARIABLE.fullmatch(f"{name}="):
            raise JobError(f"{name!r} is not NAME, or NAME=VALUE", field="--env")
        if not equals and name not in os.environ:
            raise JobError(f"{name} is not set here; write {name}=VALUE", field="--env")
        if name in (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE):
            raise JobError(f"{name} is read from the environment here and on the cluster; leave it out", field="--env")
        found[name] = value if equals else os.environ[name]
    return found
