"""Facts about one host, collected on it. Uses nothing else of distrib, so that it runs where distrib differs."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "ray", "distrib", "numpy")
"""Packages whose versions must agree on all hosts."""
RENDEZVOUS_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""What other launchers set for the processes that they start."""
STEP_TASKS_VARIABLE = "SLURM_STEP_NUM_TASKS"
"""How many copies of this command srun started."""
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_VARIABLES = (*RENDEZVOUS_VARIABLES, *INTERFACE_VARIABLES, STEP_TASKS_VARIABLE)


@dataclass(frozen=True)
class GpuFacts:
    """One GPU, as its driver describes it.

    Attributes:
        name: The product.
        memory_bytes: Its memory.
        used_bytes: Memory that processes hold now.
        processes: Ids of the processes that hold it.
        num_uncorrected_errors: Uncorrected ECC errors since the driver was loaded.
        is_slowed: Whether it runs below its clock because of heat or power.
    """

    name: str
    memory_bytes: int
    used_bytes: int
    processes: tuple[int, ...] = ()
    num_uncorrected_errors: int = 0
    is_slowed: bool = False


@dataclass(frozen=True)
class HostFacts:
    """What one host has.

    Attributes:
        name: Its host name.
        python: The version of Python.
        versions: Versions of `PACKAGES` by name; None if a package is not installed.
        cuda: The CUDA version that torch was built for, or None.
        nccl: The version of NCCL in torch, or None.
        driver: The version of the NVIDIA driver, or None.
        gpus: The GPUs that the driver sees, or None if there is a driver but it cannot be queried.
        num_visible_gpus: The GPUs that torch sees.
        num_cpus: CPUs that this process may use.
        cpu_quota: The cgroup's limit in CPUs, or None.
        name_seconds: How long the host's name took to resolve.
        name_addresses: What the name resolves to; empty if it does not resolve.
        interfaces: The interfaces with their addresses.
        environment: The variables that mislead or steer ranks, as far as they are set.
        shared_memory_bytes: Size of /dev/shm, or None if there is none.
        num_open_files: The soft limit of open files.
        free_bytes: Free disk space by folder.
    """

    name: str
    python: str
    versions: dict[str, str | None]
    cuda: str | None = None
    nccl: str | None = None
    driver: str | None = None
    gpus: tuple[GpuFacts, ...] | None = ()
    num_visible_gpus: int = 0
    num_cpus: int = 1
    cpu_quota: float | None = None
    name_seconds: float = 0.0
    name_addresses: tuple[str, ...] = ()
    interfaces: dict[str, tuple[str, ...]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    shared_memory_bytes: int | None = None
    num_open_files: int = 0
    free_bytes: dict[str, int] = field(default_factory=dict)


def collect_host_facts(folders: tuple[str, ...] = ()) -> HostFacts:
    """Collects the facts of this host; imports torch.

    Args:
        folders: Folders whose free disk space matters, besides the one for temporary files.
    """
    import torch

    driver, gpus = _gpus()
    name_seconds, name_addresses = _resolve(socket.gethostname())
    return replace(
        collect_free_facts(folders),
        versions={package: _version(package) for package in PACKAGES},
        cuda=torch.version.cuda,
        nccl=_nccl(),
        driver=driver,
        gpus=gpus,
        num_visible_gpus=torch.cuda.device_count(),
        name_seconds=name_seconds,
        name_addresses=name_addresses,
    )


def collect_free_facts(folders: tuple[str, ...] = ()) -> HostFacts:
    """Collects the facts that take a few milliseconds and import nothing large; the others keep their defaults."""
    return HostFacts(
        name=socket.gethostname(),
        python=platform.python_version(),
        versions={},
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_quota=_cpu_quota(),
        interfaces=_interfaces(),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        shared_memory_bytes=_size_of("/dev/shm"),
        num_open_files=_open_files(),
        free_bytes=_free_bytes((tempfile.gettempdir(), *folders)),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _nccl() -> str | None:
    import torch

    if torch.version.cuda is None:
        return None
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    except Exception:  # a build without NCCL raises different errors in different versions
        return None


def _gpus() -> tuple[str | None, tuple[GpuFacts, ...] | None]:
    """The driver's version and its GPUs; (None, ()) without a driver, (…, None) if it cannot be queried."""
    has_device = Path("/dev/nvidiactl").exists()
    try:
        import pynvml
    except ImportError:
        return None, None if has_device else ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, None if has_device else ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return str(pynvml.nvmlSystemGetDriverVersion()), tuple(_gpu(pynvml, handle) for handle in handles)
    except pynvml.NVMLError:
        return None, None
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: object, handle: object) -> GpuFacts:
    nvml: object = pynvml

    def query(name: str, *arguments: object, default: object = None) -> object:
        try:
            return getattr(nvml, name)(handle, *arguments)
        except Exception:  # not every GPU answers every query
            return default

    memory = query("nvmlDeviceGetMemoryInfo")
    processes = query("nvmlDeviceGetComputeRunningProcesses", default=[])
    errors = query("nvmlDeviceGetTotalEccErrors", 1, 0, default=0)  # uncorrected, since the driver was loaded
    reasons = query("nvmlDeviceGetCurrentClocksThrottleReasons", default=0)
    slowed = 0x8 | 0x20 | 0x40 | 0x80  # hardware slowdown, thermal (software, hardware), power brake; see nvml.h
    return GpuFacts(
        name=str(query("nvmlDeviceGetName", default="GPU")),
        memory_bytes=int(getattr(memory, "total", 0)),
        used_bytes=int(getattr(memory, "used", 0)),
        processes=tuple(process.pid for process in processes),  # type: ignore[attr-defined]
        num_uncorrected_errors=int(errors),  # type: ignore[call-overload]
        is_slowed=bool(int(reasons) & slowed),  # type: ignore[call-overload]
    )


def _cpu_quota() -> float | None:
    """The limit that a container's cgroup sets, in CPUs (cgroup v2's cpu.max: quota and period in microseconds)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _resolve(name: str) -> tuple[float, tuple[str, ...]]:
    started = time.monotonic()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return time.monotonic() - started, ()
    return time.monotonic() - started, tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _interfaces() -> dict[str, tuple[str, ...]]:
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: tuple(address.address.partition("%")[0] for address in addresses if address.family in families)
        for name, addresses in psutil.net_if_addrs().items()
    }


def _size_of(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return None


def _open_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _free_bytes(folders: tuple[str, ...]) -> dict[str, int]:
    """Free space where each folder is or, if it does not exist yet, where it would be created."""
    found = {}
    for folder in folders:
        place = Path(folder).absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        usage = shutil.disk_usage(place)
        if usage.total:  # virtual file systems, such as /proc, have no size
            found[folder] = usage.free
    return found
