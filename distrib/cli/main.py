"""The `distrib` command: its subcommands, and the mapping from errors to messages and exit codes."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from distrib import __version__
from distrib.cli.compare import compare
from distrib.cli.doctor import EXIT_CODES as DOCTOR_EXIT_CODES
from distrib.cli.doctor import doctor
from distrib.cli.ending import end_process
from distrib.cli.export import export
from distrib.cli.flags import with_flags
from distrib.cli.init import init
from distrib.cli.latency import latency
from distrib.cli.list import list_
from distrib.cli.logs import logs
from distrib.cli.plan import plan
from distrib.cli.predict import predict
from distrib.cli.report import report
from distrib.cli.run import EXIT_CODES, run
from distrib.cli.scale import scale
from distrib.cli.script import unknown_option_advice
from distrib.cli.serve import serve
from distrib.cli.status import status
from distrib.cli.stop import stop
from distrib.cli.submit import submit
from distrib.cli.terminal import RED, abandon, colored
from distrib.cli.watch import watch
from distrib.errors import DistribError, StoppedError
from distrib.launch.process.output import open_standard_streams

USAGE_EXIT_CODE = 2
_ARGUMENTS = "distrib.arguments"
"""The key of the subcommand and its arguments."""


class Verbs(TyperGroup):
    """The subcommands. Ctrl-C stops any of them, unless a launcher handles it; usage errors name the fix."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the subcommand and keeps its arguments, which an error about them needs."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the subcommand."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise
        except KeyboardInterrupt:
            raise StoppedError("interrupted") from None
        except Exception as error:
            if hasattr(error, "possibilities") and hasattr(error, "option_name"):  # a usage error: no such option
                advice = unknown_option_advice(ctx.meta[_ARGUMENTS], error.option_name)
                error.message += f"; {advice}" if advice else ""  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    name="distrib",
    cls=Verbs,
    help="Train PyTorch models on many workers, in local processes or on Ray.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init)
app.command("run", epilog=EXIT_CODES)(run)
app.command("plan")(plan)
app.command("scale", epilog=EXIT_CODES)(scale)
app.command("doctor", epilog=DOCTOR_EXIT_CODES)(doctor)
app.command("submit", epilog=EXIT_CODES)(submit)
app.command("list")(list_)
app.command("compare")(compare)
app.command("report")(report)
app.command("watch")(watch)
app.command("status")(status)
app.command("logs")(logs)
app.command("stop")(stop)
app.command("predict")(predict)
app.command("export")(export)
app.command("latency")(latency)
app.command("serve")(serve)


def main() -> None:
    """Runs the command line and ends the process with its exit code; SIGTERM has the effect of Ctrl-C."""
    open_standard_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # so that any exception text can be printed
    code = _run_and_report(sys.argv[1:])
    end_process(code, waits_for_threads=code != StoppedError.exit_code)


def _print_version(is_asked_for: bool) -> None:
    if is_asked_for:
        print(f"distrib {__version__}")
        raise typer.Exit


@app.command("schema")
def _schema() -> None:
    """Print the JSON Schema of the job spec."""
    from distrib.cli.schema import schema

    schema()


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command itself."""


def _run_and_report(arguments: list[str]) -> int:
    """Runs the command line, prints any error and returns the exit code."""
    wants_json = "--json" in arguments
    code = 0
    try:
        app(arguments, prog_name="distrib")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
        if code == USAGE_EXIT_CODE and wants_json:
            _print_json_error("the command line is wrong; see stderr for details", code)
    except DistribError as error:
        code = error.exit_code
        message = with_flags(str(error))
        print(_message(message, sys.stderr), file=sys.stderr)
        if wants_json:
            _print_json_error(message, code)
    except BrokenPipeError:
        code = 1
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        abandon(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            print(_message(f"stdout cannot be written: {error}", sys.stderr), file=sys.stderr)
        return code or 1
    return code


def _message(text: str, stream: TextIO) -> str:
    """An error message with its continuation lines aligned."""
    prefix = "distrib: "
    return colored(prefix + text.replace("\n", "\n" + " " * len(prefix)), RED, stream)


def _print_json_error(message: str, exit_code: int) -> None:
    print(json.dumps({"status": "error", "exit_code": exit_code, "error": message}))
