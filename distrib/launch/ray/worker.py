"""A rank in a Ray Train worker."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.errors import ClusterLostError
from distrib.job.plan import Request
from distrib.launch.local.progress import SharedProgress
from distrib.launch.network import use_interface_of
from distrib.launch.process.environment import set_rank_variables
from distrib.launch.process.output import output_redirected
from distrib.launch.ray.cluster.settings import keep_worker_quiet
from distrib.launch.ray.control_store import SECRETS, RayControlStore
from distrib.launch.ray.positions import PositionPublisher
from distrib.launch.ray.rank_context import RayRankContext
from distrib.launch.ray.rank_process import RankProcess
from distrib.launch.script.config import AnyConfig, ScriptConfig
from distrib.runs.storage.errors import StorageNotSharedError
from distrib.runs.storage.open import open_rank
from distrib.train.context import RankConfig, RankInfo
from distrib.train.failure import Failure
from distrib.train.phases import RankProgress

if TYPE_CHECKING:
    from distrib.train.worker import RankResult

PRETEND_VARIABLE = "DISTRIB_PRETEND_GPUS"
"""Set on hosts whose GPUs only Ray believes in, as in a rehearsal: workers that hold one then train on the CPU."""

CANCELLED = -1
"""The attempt of a trainer that is no longer needed."""

_POLL_SECONDS = 0.5


class RankFailedError(RuntimeError):
    """A rank has failed and has reported why to the launcher."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a Ray Train worker needs to become a rank.

    Attributes:
        attempt: What all ranks have in common; the number is that of the trainer's first attempt.
        control: Through which the launcher controls the ranks.
        trainer: The number of the trainer.
        is_local: Whether all workers are on the launcher's machine.
    """

    attempt: AnyConfig
    control: RayControlStore
    trainer: int
    is_local: bool


def train_as_ray_worker(config: dict[str, WorkerConfig]) -> None:
    """The function that Ray Train runs in each worker; `config` has a single entry, `worker`."""
    from ray.train import get_context

    worker, context = config["worker"], get_context()
    control = worker.control
    os.environ.update(control.read(SECRETS) or {})
    number = _await_attempt(control, worker.trainer)
    attempt = replace(worker.attempt, attempt=number)
    address = _address()
    name = socket.gethostname() if worker.is_local else f"{socket.gethostname()} ({address})"
    info = RankInfo(
        context.get_world_rank(),
        context.get_world_size(),
        context.get_local_rank(),
        name,
        _gpu(),
        context.get_local_world_size(),
        context.get_node_rank(),
    )
    shared = SharedProgress.create(1) if attempt.is_script else None  # a script runs in another process
    progress = RankProgress.private() if shared is None else shared.of_rank(0)
    rank_context = RayRankContext(info, address, progress=progress, shared_progress=shared)
    control.write(f"rank/{number}/{info.rank}", {"name": name, **asdict(RankProcess.this_one(_node_id()))})
    attempt = _moved_here(attempt, is_local=worker.is_local)
    _follow_commands(control, attempt, rank_context)
    _check_storage(control, attempt, info)
    use_interface_of(address)
    set_rank_variables(info, attempt.layout)
    attempt = replace(attempt, request=_without_pretense(attempt.request))
    with output_redirected(attempt.layout, info.rank, name):  # past Ray's capture, which cuts lines
        result = _run(attempt, rank_context)
    if result.failure is not None:
        control.report_failure(number, info.rank, result.failure)
    if result.status == "failed":
        keep_worker_quiet()
        raise RankFailedError("the launcher knows why")
    if info.rank == 0:
        control.write(f"result/{number}", result.status)


def _run(attempt: AnyConfig, context: RayRankContext) -> RankResult:
    """Trains as one rank in this process, or runs a script in one of its own."""
    if isinstance(attempt, ScriptConfig):
        from distrib.launch.ray.script import run_in_process

        return run_in_process(attempt, context)
    return attempt.run_rank(context, None)


def _await_attempt(control: RayControlStore, trainer: int) -> int:
    """Waits for the attempt that the trainer's workers are to make: workers may be started before it begins."""
    import ray

    import distrib.train.worker  # noqa: F401 - uses the time until the attempt begins

    control.write(f"ready/{trainer}/{ray.get_runtime_context().get_worker_id()}", value=True)
    attempt: int = control.await_(f"attempt/{trainer}")
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
    """The index of this worker's GPU among the visible ones: its own and those of its host's other workers."""
    import ray

    own = [str(number) for number in ray.get_gpu_ids()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible.index(own[0]) if own and own[0] in visible else 0


def _follow_commands(control: RayControlStore, attempt: AnyConfig, context: RayRankContext) -> None:
    """Publishes the rank's position and follows the launcher's commands, even while the rank waits in a collective."""
    info, number = context.rank_info, attempt.attempt
    publisher = PositionPublisher(control, number, info.rank, info.world_size, context.progress)

    def follow() -> None:
        has_written_stacks = False
        while True:
            with suppress(ClusterLostError):  # the head may come back; if it does not, Ray ends this process
                publisher.publish()
                commands = control.commands_for(number)
                if "end" in commands:
                    os._exit(1)
                if "stop" in commands:
                    context.stopping.set()
                if "stacks" in commands and not has_written_stacks:
                    has_written_stacks = True
                    publisher.write_stacks(attempt.layout, context.script_pids)
            time.sleep(_POLL_SECONDS if info.rank == 0 else 2 * _POLL_SECONDS)

    threading.Thread(target=follow, name="launcher-commands", daemon=True).start()


def _moved_here(attempt: AnyConfig, *, is_local: bool) -> AnyConfig:
    """The attempt with the launcher's working directory, and the job's files in it, at their paths on this host."""
    if is_local:
        os.chdir(attempt.working_directory)
        return attempt
    return attempt.moved_to(Path.cwd())


def _check_storage(control: RayControlStore, attempt: RankConfig, info: RankInfo) -> None:
    """Checks that this host sees where the run is kept, and can write there."""
    try:
        open_rank(attempt.run_location, info.rank, attempt.attempt, attempt.lease).check_visible()
    except StorageNotSharedError as problem:
        error = StorageNotSharedError(f"{info.host_name} {problem}")
        control.report_failure(attempt.attempt, info.rank, Failure.of(error, info))
        raise RankFailedError(str(error)) from None


def _without_pretense(request: Request) -> Request:
    """The request, on the CPU if this host declares that its GPUs are pretended."""
    if request.device == "cuda" and os.environ.get(PRETEND_VARIABLE):
        return replace(request, device="cpu", backend="gloo")
    return request
