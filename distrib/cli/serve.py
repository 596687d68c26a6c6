"""`distrib serve`: serves a trained model over HTTP."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from distrib.cli.options import RunArgument, RunsDirOption
from distrib.cli.trained import InferenceDeviceOption, ThreadsOption, WeightsOption, load_trained
from distrib.errors import JobError

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
MEBIBYTE = 2**20


def serve(
    run: RunArgument,
    *,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Address to listen on; requires a token unless loopback."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 selects a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="DISTRIB_SERVE_TOKEN",
            metavar="TEXT",
            help="Bearer token that requests must carry; other users see it unless it is set as a variable.",
            show_default=False,
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Maximum rows per forward pass.")] = 64,
    max_wait_ms: Annotated[
        float, typer.Option("--max-wait-ms", min=0.0, help="Maximum wait for requests that are being received.")
    ] = 2.0,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="Maximum waiting requests; further ones get status 429.")
    ] = 256,
    max_body_mb: Annotated[
        float, typer.Option("--max-body-mb", min=0.001, help="Largest request body, in MiB.")
    ] = 16.0,
    client_timeout: Annotated[
        float, typer.Option("--client-timeout", min=0.1, help="Seconds that a client has to send a request.")
    ] = 10.0,
    device: InferenceDeviceOption = "auto",
    threads: ThreadsOption = None,
    weights: WeightsOption = "last",
    runs_dir: RunsDirOption = None,
) -> None:
    """Serve a trained model over HTTP."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        names = " and ".join(name.replace("_", "-") for name in missing)
        raise JobError(f"serve needs {names}, which is not installed: pip install 'distrib[serve]'")
    token = _check_token(token)
    trained = load_trained(run, weights, runs_dir)

    from distrib.inference.serving.address import open_socket

    with open_socket(host, port, token) as bound:
        from distrib.inference.serving.batcher import BatchingOptions
        from distrib.inference.serving.server import ServeOptions
        from distrib.inference.serving.server import serve as run_service
        from distrib.inference.serving.service import ServiceOptions
        from distrib.launch.devices import usable_cpus

        batching = BatchingOptions(max_batch, max_wait_ms / 1e3, max_queue)
        service = ServiceOptions(batching, int(max_body_mb * MEBIBYTE), client_timeout, token)
        options = ServeOptions(device, threads or usable_cpus(), service)

        def announce(url: str, device: str) -> None:
            what = f"{trained.run_id}, {trained.weights.label}, on {device}"
            print(f"serving {what}: POST {url}/predict; Ctrl-C stops it", flush=True)

        run_service(trained, bound, options, announce)


def _check_token(token: str | None) -> str | None:
    """Checks that a token is valid in a header: printable ASCII without spaces."""
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise JobError(
            "the token must be printable ASCII without spaces; "
            "python3 -c 'import secrets; print(secrets.token_urlsafe())' generates one",
            field="--token",
        )
    return token
