"""A trained model at work: predict against a hand-written loop, serve against a hand-written endpoint and itself."""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.bench.compare import Row, take_turns
from tests.bench.process import SideFailedError, run_side
from tests.bench.serving import ask, free_port, served

COMPUTE_BOUND = (1024, 8)
"""Width and number of hidden layers: most of the time goes to multiplying."""
SMALL = (256, 2)
BATCHING_PAYS = (8192, 2)
"""Reading the weights takes most of the time, for one row as for many."""

SECONDS = 4.0
CAPACITY_SECONDS, LOAD_SECONDS = 4.0, 60.0
CONNECTIONS = 32


def measure(rounds: int) -> list[Row]:
    """Three judged rows and one for information."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_predict(Path(folder), rounds), _latency(Path(folder), rounds), _batching(Path(folder), rounds)]


def sustain(_rounds: int) -> list[Row]:
    """One row: requests that were lost or refused in a minute at four fifths of the capacity that was found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, body = _make_run(folder, SMALL), _body(folder)
        port = free_port()
        with served("distrib serve", _serve(run, port), port) as url:
            capacity = ask(url, body, connections=CONNECTIONS, seconds=CAPACITY_SECONDS)["requests_per_second"]
            told = ask(url, body, connections=CONNECTIONS, seconds=LOAD_SECONDS, rate=0.8 * capacity)
    what = f"serve, a minute at {0.8 * capacity:.0f} requests/s, 80 % of its capacity"
    lost = float(told["num_problems"] + sum(told["statuses"].values()) - told["statuses"]["200"])
    return [
        Row(f"{what}: requests lost of {told['num_requests']}", (lost,), bound=0.0),
        Row(f"{what}: p99, ms", (told["p99_ms"],)),
    ]


def _predict(folder: Path, rounds: int) -> list[Row]:
    run = _make_run(folder, COMPUTE_BOUND)
    sides = {"distrib": partial(_predict_ours, folder, run), "a loop": partial(_predict_peer, folder, run)}
    measured = take_turns(rounds, sides)
    told, whole = ([[side[index] for side in measured[name]] for name in sides] for index in (0, 1))
    return [
        Row("predict, 2 workers, a loop: seconds for all rows", tuple(told[0]), tuple(told[1]), bound=1 / 1.7),
        Row("predict, 2 workers, a loop: the whole process, s", tuple(whole[0]), tuple(whole[1])),
    ]


def _predict_ours(folder: Path, run: Path) -> tuple[float, float]:
    """Seconds for all rows as `distrib predict` says, and of the whole process."""
    result_file = folder / "ours.json"
    data = ["--data", "tests.bench.inference_work:Rows", "--workers", "2", "--device", "cpu"]
    command = [sys.executable, "-m", "distrib", "predict", str(run), *data, "--force", "--json"]
    shell = f'exec "$@" > {result_file}'
    finished = run_side(
        "distrib predict", ["sh", "-c", shell, "sh", *command, "--out", str(folder / "ours.npy")], timeout_seconds=180
    )
    return json.loads(result_file.read_text())["seconds"], finished.ended - finished.started


def _predict_peer(folder: Path, run: Path) -> tuple[float, float]:
    result_file = folder / "peer.json"
    script = [sys.executable, "tests/bench/peers/predict_loop.py", str(run / "model.safetensors")]
    command = [*script, *map(str, COMPUTE_BOUND), str(folder / "peer.npy")]
    environment = {"BENCH_RESULT": str(result_file)}
    finished = run_side("the loop", command, timeout_seconds=180, environment=environment)
    import numpy

    ours = folder / "ours.npy"
    if ours.exists() and not numpy.allclose(numpy.load(ours), numpy.load(folder / "peer.npy"), atol=1e-4):
        raise SideFailedError("the two sides predict different things")
    return json.loads(result_file.read_text())["seconds"], finished.ended - finished.started


def _latency(folder: Path, rounds: int) -> Row:
    run, body = _make_run(folder, SMALL), _body(folder)
    ports = free_port(), free_port()
    peer = [sys.executable, "-m", "tests.bench.peers.fastapi_endpoint", str(run / "model.safetensors")]
    with (
        served("distrib serve", _serve(run, ports[0]), ports[0]) as ours,
        served("FastAPI", [*peer, *map(str, SMALL), str(ports[1])], ports[1]) as theirs,
    ):
        sides = {name: partial(ask, url, body, connections=1, seconds=SECONDS)
                 for name, url in (("distrib", ours), ("FastAPI", theirs))}  # fmt: skip
        told = take_turns(rounds, sides)
    p50 = [tuple(answer["p50_ms"] for answer in told[name]) for name in sides]
    return Row("serve, FastAPI: p50 of one row at a time, ms", *p50, bound=1.2)


def _batching(folder: Path, rounds: int) -> Row:
    run, body = _make_run(folder, BATCHING_PAYS), _body(folder)
    ports = free_port(), free_port()
    alone = _serve(run, ports[1], "--max-batch", "1")
    with (
        served("distrib serve", _serve(run, ports[0]), ports[0]) as together,
        served("distrib serve --max-batch 1", alone, ports[1]) as one_by_one,
    ):
        sides = {name: partial(ask, url, body, connections=CONNECTIONS, seconds=SECONDS)
                 for name, url in (("batches", together), ("one by one", one_by_one))}  # fmt: skip
        told = take_turns(rounds, sides)
    times = [tuple(1e3 / answer["requests_per_second"] for answer in told[name]) for name in sides]
    return Row("serve, in batches against one by one: ms a request", *times, bound=1 / 2)


def _make_run(folder: Path, size: tuple[int, int]) -> Path:
    from tests.bench.inference_work import make_run

    run = folder / f"run-{size[0]}"
    return run if run.exists() else make_run(run, *size)


def _body(folder: Path) -> Path:
    path = folder / "body.json"
    path.write_text(json.dumps({"inputs": [[index / 256 for index in range(256)]]}))
    return path


def _serve(run: Path, port: int, *options: str) -> list[str]:
    arguments = ["serve", str(run), "--port", str(port), "--device", "cpu", "--threads", "1", *options]
    return [sys.executable, "-m", "distrib", *arguments]
