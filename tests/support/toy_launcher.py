"""A launcher as a newcomer would write one: each rank is a process of `multiprocessing`, on this machine."""

import multiprocessing
import socket
from dataclasses import dataclass
from functools import cached_property

from distrib.job.plan import LaunchDescription
from distrib.launch.launcher import AttemptResult, Placement
from distrib.launch.process.output import redirect_output
from distrib.launch.watch.failure_cause import find_cause, read_failures
from distrib.runs.layout import RunLayout
from distrib.train.context import RankInfo
from distrib.train.phases import RankProgress


@dataclass
class ToyRankContext:
    """How a toy rank reaches its launcher: through a port for the store and an event that requests a stop."""

    rank_info: RankInfo
    port: int
    stop: object

    def open_store(self, timeout):
        import torch.distributed as dist

        return dist.TCPStore("127.0.0.1", self.port, self.rank_info.world_size, self.rank_info.rank == 0, timeout)

    @cached_property
    def progress(self):
        return RankProgress.private()

    def stop_requested(self):
        return self.stop.is_set()


def rank(config, context, results):
    from distrib.train.worker import main

    redirect_output(RunLayout(config.run_folder), context.rank_info.rank, context.rank_info.host_name)
    results.put((context.rank_info.rank, main(config, context).status))


class ToyLauncher:
    """Runs ranks by `multiprocessing`."""

    def __init__(self, job):
        self.job = job

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    @property
    def observers(self):
        return ()

    def prepare(self, work):
        return work()

    def choose_device(self, job):
        return "cpu"

    def describe(self, request):
        return LaunchDescription("toy process", {"start_method": "spawn"})

    def find_room(self, request, notice, is_stopping):
        return Placement(request.max_workers)

    def run(self, attempt):
        spawn = multiprocessing.get_context("spawn")
        stop, results = spawn.Event(), spawn.Queue()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        processes = []
        for number in range(attempt.world_size):
            info = RankInfo(number, attempt.world_size, number, socket.gethostname())
            context = ToyRankContext(info, port, stop)
            processes.append(spawn.Process(target=rank, args=(attempt.config, context, results), daemon=True))
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            processes[0].join(0.1)
            attempt.monitor.poll()
            if attempt.monitor.stop_requested():
                stop.set()
            if any(process.exitcode for process in processes):
                break
        deaths = {number: process.exitcode for number, process in enumerate(processes) if process.exitcode}
        for process in processes:
            process.kill()
            process.join()
        attempt.monitor.drain()
        statuses = {results.get(timeout=1)[1] for _ in processes if not results.empty()}
        failures = read_failures(attempt.config.run_folder, attempt.world_size)
        if deaths or failures:
            return AttemptResult("failed", find_cause(failures, deaths))
        return AttemptResult("finished" if statuses == {"finished"} else "stopped")
