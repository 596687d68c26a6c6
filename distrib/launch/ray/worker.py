"""A rank in a Ray Train worker."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from distrib.errors import LaunchError
from distrib.job.plan import Request
from distrib.launch.environment import name_rank
from distrib.launch.network import listen_on, use_interface_of
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.settings import keep_worker_quiet
from distrib.runs.layout import RunLayout
from distrib.runs.lease import is_held
from distrib.train.context import AttemptConfig, RankInfo
from distrib.train.failure import Failure

if TYPE_CHECKING:
    import torch.distributed as dist

PRETEND_VARIABLE = "DISTRIB_PRETEND_GPUS"
"""Set on hosts whose GPUs are only Ray's belief, as in a rehearsal: workers that hold one then train on the CPU."""

CANCELLED = -1
"""Stands for the attempt of a fit that is not needed any more."""

_POLL_SECONDS = 0.5
_SHARED_FOLDER_SECONDS = 5.0


class RankFailedError(RuntimeError):
    """A rank has failed and has told the launcher why."""


class StorageNotSharedError(LaunchError):
    """A host does not see the run's folder."""


@dataclass(frozen=True)
class RayRankContext:
    """The launcher as a rank in a Ray Train worker sees it.

    Attributes:
        place: Where the rank stands.
        address: The address of its host in the cluster.
        stopping: Set once the launcher has asked to stop.
    """

    place: RankInfo
    address: str
    stopping: threading.Event = field(default_factory=threading.Event)

    def open_store(self, timeout: timedelta) -> dist.Store:
        """A store served by rank 0, whose address Ray Train carries to the others."""
        import torch.distributed as dist
        from ray.train.collective import broadcast_from_rank_zero

        if self.place.rank == 0:
            listener = listen_on(self.address)
            port = listener.getsockname()[1]
            store = dist.TCPStore(
                self.address,
                port,
                self.place.world_size,
                is_master=True,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=listener.detach(),
            )
            broadcast_from_rank_zero((self.address, port))
            return store
        address, port = broadcast_from_rank_zero(None)
        return dist.TCPStore(address, port, self.place.world_size, is_master=False, timeout=timeout)

    def stop_requested(self) -> bool:
        """Whether the launcher has asked to stop."""
        return self.stopping.is_set()


def train_as_ray_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker; `config` has the `assignment` of the first attempt, the `board`'s key, the
    number of the `fit` and whether the run is `alone` on this machine."""
    from ray.train import get_context

    board, context = RayControlStore(config["board"]), get_context()
    assignment: AttemptConfig = replace(
        config["assignment"], attempt=_await_attempt(board, config["fit"])
    ).with_local_mirror()
    address = _address()
    name = socket.gethostname() if config["alone"] else f"{socket.gethostname()} ({address})"
    place = RankInfo(context.get_world_rank(), context.get_world_size(), context.get_local_rank(), name, _gpu())
    host = RayRankContext(place, address)
    board.write(f"place/{assignment.attempt}/{place.rank}", {"name": name, "node_id": _node_id()})
    _obey(board, assignment.attempt, host)
    assignment = _moved_here(assignment, is_alone=config["alone"])
    _prove_storage(board, assignment, place)
    layout = RunLayout(assignment.run_folder)
    use_interface_of(address)
    name_rank(place)
    assignment = replace(assignment, request=_without_pretence(assignment.request))
    with _output_in(layout.rank_log(place.rank)):
        from distrib.train.worker import main

        result = main(assignment, host)
    if result.failure is not None:
        board.report(assignment.attempt, place.rank, result.failure)
        keep_worker_quiet()
        raise RankFailedError("the launcher has been told why")
    if place.rank == 0:
        board.write(f"result/{assignment.attempt}", result.status)


def _await_attempt(board: RayControlStore, fit: int) -> int:
    """The attempt that the fit's workers are to make, once it is their turn: they may be started ahead of it."""
    import ray

    import distrib.train.worker  # noqa: F401 - while there is time

    board.write(f"ready/{fit}/{ray.get_runtime_context().get_worker_id()}", value=True)
    attempt: int = board.await_(f"attempt/{fit}")
    if attempt == CANCELLED:
        raise RankFailedError("not needed any more")
    return attempt


def _address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _gpu() -> int:
    """The index of this worker's GPU among those that it sees: its own and those of its host's other workers."""
    import ray

    mine = [str(number) for number in ray.get_gpu_ids()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible.index(mine[0]) if mine and mine[0] in visible else 0


def _obey(board: RayControlStore, attempt: int, host: RayRankContext) -> None:
    """Listens for the launcher's wishes in a thread; one to end at once works also where the rank waits for others."""

    def listen() -> None:
        while True:
            wish = board.wish_for(attempt)
            if wish == "end":
                os._exit(1)
            if wish == "stop":
                host.stopping.set()
            time.sleep(_POLL_SECONDS if host.place.rank == 0 else 2 * _POLL_SECONDS)

    threading.Thread(target=listen, name="launcher-wishes", daemon=True).start()


def _moved_here(assignment: AttemptConfig, *, is_alone: bool) -> AttemptConfig:
    """The assignment with the launcher's working directory, and the job's files in it, where they are on this host."""
    if is_alone:
        os.chdir(assignment.working_directory)
        return assignment
    here = Path.cwd()
    path = here / assignment.job.path.relative_to(assignment.working_directory)
    return replace(assignment, working_directory=here, job=replace(assignment.job, path=path))


def _prove_storage(board: RayControlStore, assignment: AttemptConfig, place: RankInfo) -> None:
    """Makes sure that this host sees the run's folder, by the lease that the launcher has put there, and can write."""
    if assignment.run_url is not None:
        return  # the folder is this host's mirror; the rank finds out by itself whether it can use the store
    folder = assignment.run_folder
    deadline = time.monotonic() + _SHARED_FOLDER_SECONDS  # network file systems show new files late
    while not is_held(folder, assignment.lease):
        if time.monotonic() > deadline:
            problem = f"does not see the run's folder {folder}"
            break
        time.sleep(0.1)
    else:
        if os.access(folder, os.W_OK):
            return
        problem = f"cannot write to the run's folder {folder}"
    error = StorageNotSharedError(
        f"{place.host_name} {problem}; use a folder that all hosts share, at the same path, or an object store: "
        "--runs-dir or DISTRIB_RUNS_DIR"
    )
    board.report(assignment.attempt, place.rank, Failure.of(error, place))
    raise RankFailedError(str(error))


def _without_pretence(request: Request) -> Request:
    """The request, on the CPU where this host says that its GPUs are pretended."""
    if request.device == "cuda" and os.environ.get(PRETEND_VARIABLE):
        return replace(request, device="cpu", backend="gloo")
    return request


@contextmanager
def _output_in(path: Path) -> Iterator[None]:
    """Sends what this process prints to the rank's log, past Ray's own capture, which repeats and cuts lines.

    Afterwards it goes where it went before: what Ray has to say of a rank that failed is none of the rank's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    before = sys.stdout, sys.stderr
    _flush(*before)
    kept = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        yield
    finally:
        _flush(sys.stdout, sys.stderr)  # Ray ends its workers without it
        sys.stdout, sys.stderr = before
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        stream.flush()
