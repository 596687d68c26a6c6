"""Runs functions as the ranks of a gloo group, in processes forked from one that has imported torch."""

import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

TIMEOUT_SECONDS = 100

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "distrib.train.worker", "tests.support.ranks"])


def start_rank_server():
    """Starts the process that ranks are forked from; it ends with this one."""
    multiprocessing.forkserver.ensure_running()


def run_ranks(function, world_size, *arguments, environment=None):
    """Calls `function(rank, world_size, *arguments)` on all ranks; returns the results, by rank.

    The function must be importable and its arguments and results picklable. Ranks get the variables of `environment`
    too. An error of a rank fails the caller.
    """
    pickled = pickle.dumps((environment or {}, arguments))
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(world_size):
            receiver, sender = _context.Pipe(duplex=False)
            store = str(Path(folder) / "store")
            process = _context.Process(
                target=_main,
                args=(sender, function, rank, world_size, store, pickled),
            )
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        try:
            results = []
            for rank, pipe in enumerate(pipes):
                assert pipe.poll(TIMEOUT_SECONDS), f"rank {rank} has not ended after {TIMEOUT_SECONDS} s"
                results.append(pickle.loads(pipe.recv_bytes()))
        finally:
            for process in processes:
                process.kill()
                process.join()
    errors = [text for is_error, text in results if is_error]
    assert not errors, "\n".join(errors)
    return [result for _, result in results]


def _main(pipe, function, rank, world_size, store, pickled):
    import torch
    import torch.distributed as dist

    from distrib.compat.pytorch import dynamo

    dynamo.install()  # as every rank does, which saves a second in each
    torch.set_num_threads(1)
    environment, arguments = pickle.loads(pickled)
    os.environ.update(environment)
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(store, world_size),
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=TIMEOUT_SECONDS / 2),
        )
        result = function(rank, world_size, *arguments)
        dist.barrier()
        pipe.send_bytes(pickle.dumps((False, result)))
    except BaseException:
        pipe.send_bytes(pickle.dumps((True, f"rank {rank}: {traceback.format_exc()}")))
    finally:
        pipe.close()
