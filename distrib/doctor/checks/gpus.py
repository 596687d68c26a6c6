"""GPUs: does torch see what the driver sees, are they healthy and free?"""

from __future__ import annotations

from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import GpuFacts, HostFacts

_BUSY_FRACTION = 0.1
"""Of a GPU's memory: what a driver and a display hold without a training is less."""


class Gpus:
    """Checks the GPUs of every host."""

    name = "gpus"
    is_free = False

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each problem, or the number of GPUs."""
        is_needed = situation.request is not None and situation.request.device == "cuda"
        problems = [
            finding
            for host, facts in situation.facts.items()
            for finding in _problems(self.name, host, facts, is_needed)
        ]
        yield from problems
        if problems:
            return
        counts = [facts.num_visible_gpus for facts in situation.facts.values()]
        yield Finding(self.name, "ok", f"{sum(counts)} GPUs" if any(counts) else "no GPUs: training on CPUs with gloo")


def _problems(name: str, host: str, facts: HostFacts, is_needed: bool) -> Iterable[Finding]:
    if facts.gpus is None:
        message = "there is an NVIDIA device, but its driver cannot be queried"
        yield Finding(name, "warning", message, (host,), "pip install nvidia-ml-py, and check that nvidia-smi works")
        return
    if facts.gpus and not facts.num_visible_gpus:
        built = "torch was built without CUDA" if facts.cuda is None else f"torch was built for CUDA {facts.cuda}"
        yield Finding(
            name,
            "failed" if is_needed else "warning",
            f"the driver has {len(facts.gpus)} GPUs, but torch sees none ({built}, driver {facts.driver})",
            (host,),
            "install a CUDA build of torch that the driver supports, or use resources.device: cpu",
        )
    if facts.num_visible_gpus and facts.cuda is not None and facts.nccl is None:
        yield Finding(name, "failed", "this build of torch has no NCCL", (host,), "install a build of torch with NCCL")
    for number, gpu in enumerate(facts.gpus):
        yield from _gpu_problems(name, host, number, gpu)


def _gpu_problems(name: str, host: str, number: int, gpu: GpuFacts) -> Iterable[Finding]:
    where = f"GPU {number} ({gpu.name})"
    if gpu.num_uncorrected_errors:
        message = f"{where} has {gpu.num_uncorrected_errors} uncorrected memory errors"
        yield Finding(name, "failed", message, (host,), "reset or replace the GPU before training on it")
    if gpu.is_slowed:
        message = f"{where} is slowed down by heat or power"
        yield Finding(
            name, "warning", message, (host,), "check its cooling and power limit: nvidia-smi -q -d PERFORMANCE"
        )
    if gpu.memory_bytes and gpu.used_bytes > _BUSY_FRACTION * gpu.memory_bytes:
        held = f" by process {', '.join(map(str, gpu.processes))}" if gpu.processes else ""
        message = f"{gpu.used_bytes / 2**30:.1f} GiB of {where} are in use{held}"
        yield Finding(name, "warning", message, (host,), "end processes that are left from earlier trainings")
