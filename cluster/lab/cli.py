"""The command `python -m cluster.lab`: its subcommands, and the mapping from errors to messages and exit codes."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from cluster.lab.errors import LabError
from cluster.lab.lab import DEFAULT_NAME, FOLDER_VARIABLE, Lab
from cluster.lab.status import lines
from distrib.errors import DistribError, StoppedError


class Verbs(TyperGroup):
    """The subcommands; Ctrl-C stops any of them."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError("interrupted") from None


app = typer.Typer(
    name="cluster.lab",
    cls=Verbs,
    help="Emulate several hosts on one Linux machine, each with its own address and Ray node, to rehearse failures. "
    "Needs root and iproute2.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NameOption = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the lab, if there are several.")]
FolderOption = Annotated[
    str | None,
    typer.Option(
        "--folder", metavar="DIR", help=f"Folder for the files of labs; also ${FOLDER_VARIABLE}.", show_default=False
    ),
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="host1 (the head), host2, …", show_default=False)]


@app.command()
def up(
    hosts: Annotated[int, typer.Option("--hosts", metavar="N", help="Number of hosts.")] = 3,
    cpus: Annotated[int, typer.Option("--cpus", metavar="C", help="CPUs that each host reports to Ray.")] = 2,
    gpus: Annotated[int, typer.Option("--gpus", metavar="G", help="Simulated GPUs that each host reports to Ray.")] = 0,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="RATE", help="Bandwidth limit of each link, as 200mbit or 1gbit."),
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option("--hide", metavar="PATH:HOST", help="Hide a folder from a host; repeatable."),
    ] = None,
    names: Annotated[
        Literal["loopback", "address"],
        typer.Option("--names", help="What a host's own name resolves to; loopback as on Debian."),
    ] = "loopback",
    name: NameOption = DEFAULT_NAME,
    folder: FolderOption = None,
    *,
    bare_head: Annotated[
        bool,
        typer.Option("--bare-head", help="The head offers no CPUs or GPUs: workers run on other hosts."),
    ] = False,
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Whether to start Ray on the hosts.")] = True,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="Use IPv6 addresses.")] = False,
) -> None:
    """Start a lab and wait until Ray runs on every host."""
    lab = Lab.up(
        hosts,
        cpus=cpus,
        gpus=gpus,
        rate=rate,
        hidden=[_split_hidden(text) for text in hide or []],
        names=names,
        has_bare_head=bare_head,
        is_ipv6=ipv6,
        has_ray=ray,
        name=name,
        folder=folder,
        report=_print,
    )
    if ray:
        if lab.token_file is not None:
            print(f"export RAY_AUTH_TOKEN_PATH={shlex.quote(lab.token_file)}", file=sys.stderr)
        print(lab.address)


@app.command()
def status(
    name: NameOption = DEFAULT_NAME,
    folder: FolderOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", show_default=False)] = False,
) -> None:
    """Show the address of the lab and the status of its hosts."""
    facts = Lab.find(name, folder).status()
    if as_json:
        print(json.dumps(facts))
        return
    print("\n".join(lines(facts)))


@app.command("exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def exec_(
    host: HostArgument,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="Command to run.", show_default=False)],
    name: NameOption = DEFAULT_NAME,
    folder: FolderOption = None,
) -> None:
    """Run a command on a host, in this folder and environment, and exit with its exit code.

    RAY_ADDRESS is set to the lab's cluster. Options of the lab come before HOST.
    """
    lab = Lab.find(name, folder)
    program = lab.command(host, command)
    sys.stdout.flush()
    os.execve(program[0], program, lab.environment())


@app.command()
def kill(host: HostArgument, name: NameOption = DEFAULT_NAME, folder: FolderOption = None) -> None:
    """Kill all processes of a host with SIGKILL."""
    Lab.find(name, folder).kill(host)


@app.command()
def cut(host: HostArgument, name: NameOption = DEFAULT_NAME, folder: FolderOption = None) -> None:
    """Silently drop all packets from and to a host."""
    Lab.find(name, folder).cut(host)


@app.command()
def heal(host: HostArgument, name: NameOption = DEFAULT_NAME, folder: FolderOption = None) -> None:
    """Undo cut."""
    Lab.find(name, folder).heal(host)


@app.command()
def join(
    host: Annotated[
        str | None, typer.Argument(metavar="[HOST]", help="Host to restart; by default a new one.", show_default=False)
    ] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", metavar="C", help="By default like the last host.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="G", help="By default like the last host.")] = None,
    name: NameOption = DEFAULT_NAME,
    folder: FolderOption = None,
) -> None:
    """Add a host, or restart one that was killed or has left."""
    Lab.find(name, folder).join(host, cpus=cpus, gpus=gpus, report=_print)


@app.command()
def leave(
    host: HostArgument,
    deadline: Annotated[float, typer.Option("--deadline", metavar="SECONDS", help="When it is removed.")] = 30.0,
    name: NameOption = DEFAULT_NAME,
    folder: FolderOption = None,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to wait until it is gone.")] = True,
) -> None:
    """Drain a host: notify Ray of its removal and remove it at the deadline."""
    Lab.find(name, folder).leave(host, deadline_seconds=deadline, wait=wait)


@app.command()
def down(name: NameOption = DEFAULT_NAME, folder: FolderOption = None) -> None:
    """Remove a lab completely, including the remains of a broken one."""
    lab = Lab(name, folder)
    if not lab.down():
        print(f"there is no lab {name!r} in {lab.folder.parent}: nothing to do")


def run_command_line() -> None:
    """Runs the command line and exits with its code."""
    try:
        try:
            app(prog_name="python -m cluster.lab")
        except KeyboardInterrupt:  # before or after the verb itself
            raise StoppedError("interrupted") from None
    except DistribError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _print(line: str) -> None:
    print(line, flush=True)


def _split_hidden(text: str) -> tuple[str, str]:
    path, separator, host = text.rpartition(":")
    if not separator or not path:
        raise LabError(f"--hide {text!r} is not PATH:HOST, such as /mnt/data:host2")
    return host, path
