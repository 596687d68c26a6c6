"""The program of a rank that runs a script: torchrun's environment, the script as `__main__`, and how it ended."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.errors import DistribError, Stopped
from distrib.job.script import Script
from distrib.launch.process.output import flush_output
from distrib.launch.script.config import ScriptConfig
from distrib.train.context import RankContext, RankInfo
from distrib.train.failure import Failure, error_text
from distrib.train.process.lifetime import temporary_files_removed
from distrib.train.process.tracebacks import user_frames
from distrib.train.script.current import ScriptRank, enter
from distrib.train.worker import RankResult

if TYPE_CHECKING:
    import torch.distributed as dist

_STORE_SECONDS = 1800.0
_POLL_SECONDS = 0.05
_MAY_HAVE_LOADER_WORKERS = 1
_LIBRARY = os.path.dirname(os.__file__)
"""The folder of Python's own modules, such as argparse, and of installed packages."""
_ENDED = "distrib/ended"
"""The key under which ranks count those whose scripts have ended."""


class ScriptExitError(DistribError):
    """The script ended with an exit status other than 0."""


def run_script(config: ScriptConfig, context: RankContext) -> RankResult:
    """Runs the script as one rank; an error is written for the launcher and returned, never raised."""
    info, script = context.rank_info, config.job.spec.script
    store: dist.Store | None = None
    rank: ScriptRank | None = None
    status, failure = "finished", None
    try:
        store = context.open_store(timedelta(seconds=_STORE_SECONDS))
        rank = ScriptRank(config, context, store)
        enter(rank)
        os.environ.update(torchrun_variables(config, info, store))
        _use_threads(config.request.cpus_per_worker)
        with temporary_files_removed(_MAY_HAVE_LOADER_WORKERS):
            _run_to_the_end(script, config.working_directory, rank)
    except Stopped:
        status = "stopped"
    except BaseException as error:
        failure = _failure(error, info)
        if rank is not None and rank.session is not None:
            failure = failure.at(context.progress.position)
    if failure is not None:
        failure.write(config.layout.rank_error(info.rank))
        status = "failed"
    flush_output()
    if rank is not None and rank.session is not None:
        rank.session.close(has_failed=failure is not None)
    if failure is None and store is not None:
        _serve_until_all_have_ended(store, info)
    return RankResult(status, failure)


def _run_to_the_end(script: Script, working_directory: Path, rank: ScriptRank) -> None:
    """Runs the script, and then what its session, if it has one, does at the end."""
    try:
        _run_as_main(script, working_directory)
    except SystemExit as end:
        if end.code:
            raise
    if rank.session is not None:
        rank.session.finish()
    elif rank.config.record_samples and rank.rank_info.rank == 0:
        print("--record-samples: the script has no distrib.session(), so there is nothing to record", file=sys.stderr)


def _serve_until_all_have_ended(store: dist.Store, info: RankInfo) -> None:
    """Keeps rank 0, whose process serves the store, until the scripts of all ranks have ended.

    A script may end without a barrier while other ranks still connect; under torchrun, the agent serves the store. A
    rank that fails never reports its end, but then the launcher ends the others.
    """
    with contextlib.suppress(Exception):  # the store is lost only if rank 0 has been ended
        store.add(_ENDED, 1)
        while info.rank == 0 and store.add(_ENDED, 0) < info.world_size:
            time.sleep(_POLL_SECONDS)


def torchrun_variables(config: ScriptConfig, info: RankInfo, store: dist.TCPStore | dist.Store) -> dict[str, str]:
    """The environment variables that torchrun sets.

    With TORCHELASTIC_USE_AGENT_STORE `init_process_group` connects to the store that is served already.
    """
    attempt, max_restarts = config.attempt, config.job.spec.failures.max_restarts
    values = {
        "RANK": info.rank,
        "LOCAL_RANK": info.local_rank,
        "WORLD_SIZE": info.world_size,
        "LOCAL_WORLD_SIZE": info.local_world_size or info.world_size,
        "GROUP_RANK": info.node_rank,
        "GROUP_WORLD_SIZE": info.num_nodes,
        "ROLE_NAME": "default",
        "ROLE_RANK": info.rank,
        "ROLE_WORLD_SIZE": info.world_size,
        "MASTER_ADDR": getattr(store, "host", "127.0.0.1"),
        "MASTER_PORT": getattr(store, "port", 0),
        "TORCHELASTIC_RESTART_COUNT": attempt,
        "TORCHELASTIC_MAX_RESTARTS": max_restarts,
        "TORCHELASTIC_RUN_ID": Path(config.run_location).name,
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    return {name: str(value) for name, value in values.items()}


def _use_threads(num_threads: int) -> None:
    """Sets the threads of torch, and of libraries that the script imports; what the user has set stays."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    os.environ["OMP_NUM_THREADS"] = str(num_threads)
    torch.set_num_threads(num_threads)


def _run_as_main(script: Script, working_directory: Path) -> None:
    """Runs the script as `python FILE ARG…` or `python -m MODULE ARG…` does."""
    if script.module is not None:
        sys.argv = [script.module, *script.args]
        sys.path.insert(0, str(working_directory))
        runpy.run_module(script.module, run_name="__main__", alter_sys=True)
        return
    assert script.file is not None
    path = working_directory / script.file
    sys.argv = [script.file, *script.args]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")


def _failure(error: BaseException, info: RankInfo) -> Failure:
    """What ended the script; of `sys.exit`, the status and the line that called it."""
    if not isinstance(error, SystemExit):
        return Failure.of(error, info)
    text = f"exit status {error.code}" if isinstance(error.code, int) else error_text(error)
    frames = [frame for frame in traceback.extract_tb(user_frames(error)) if not frame.filename.startswith(_LIBRARY)]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return Failure.of(ScriptExitError(text + where), info)
