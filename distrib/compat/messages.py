"""Error texts and warnings of other libraries that tell apart what their types do not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from distrib.compat.symbols import RAY_VERSIONS, TORCH_VERSIONS, PrivateSymbol

_CONNECTION_SIGNS = ("gloo/", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
_TIMEOUT_SIGNS = ("Timed out waiting", "timed out", "timeout")
_LOADER_SIGN = "DataLoader worker (pid"
_SHARED_MEMORY_SIGNS = ("Bus error", "shared memory", "No space left on device: '/torch_")
_FILE_WRITER_SIGNS = ("inline_container", "PytorchStreamWriter")
_CUDA_SIGN = "CUDA error"
_DEVICE_MEMORY_SIGNS = ("CUDA out of memory", "OutOfMemoryError", "CUBLAS_STATUS_ALLOC_FAILED")
_HOST_MEMORY_SIGNS = ("MemoryError", "can't allocate memory", "Cannot allocate memory")
_UNUSED_SIGN = "Expected to have finished reduction in the prior iteration"
_PORT_SIGNS = ("EADDRINUSE", "Address already in use", "address already in use")
_NCCL_SIGN = "NCCL"

SYMBOLS = (
    PrivateSymbol(
        "torch.distributed: text of a lost connection",
        "gloo raises RuntimeError for a lost peer, as user code does for its own errors",
        TORCH_VERSIONS,
        "the error counts as the job's own, and is not restarted",
    ),
    PrivateSymbol(
        "torch.distributed: text of a time-out",
        "gloo and TCPStore have no type for a time-out",
        TORCH_VERSIONS,
        "the error counts as a lost connection, not as a hang",
    ),
    PrivateSymbol(
        "torch.utils.data: text of a lost loader worker",
        "a killed loader worker raises a plain RuntimeError",
        TORCH_VERSIONS,
        "the error counts as the job's own, and is not restarted",
    ),
    PrivateSymbol(
        "torch.utils.data: text of a loader worker without shared memory",
        "a full /dev/shm kills a loader worker by SIGBUS, which a restart does not change",
        TORCH_VERSIONS,
        "the run is restarted although that cannot help",
    ),
    PrivateSymbol(
        "torch.serialization: text of a file that cannot be written",
        "torch's file writer hides the operating system's error, such as a full disk, in a RuntimeError",
        TORCH_VERSIONS,
        "the error ends the run instead of costing one checkpoint",
    ),
    PrivateSymbol(
        "torch: texts of memory that is full",
        "the CPU allocator raises a plain RuntimeError, cuBLAS too",
        TORCH_VERSIONS,
        "the error is shown without advice",
    ),
    PrivateSymbol(
        "torch.nn.parallel: text of unused parameters",
        "DDP raises a plain RuntimeError in the step after the one in which parameters were not used",
        TORCH_VERSIONS,
        "the error is shown without advice",
    ),
    PrivateSymbol(
        "torch.cuda: text of a broken CUDA context",
        "after such an error no call on the GPU succeeds; those of cuBLAS are plain RuntimeErrors",
        TORCH_VERSIONS,
        "a service goes on answering with errors",
    ),
    PrivateSymbol(
        "torchmetrics: warning of compute before update",
        "a rank without evaluation samples never updates its metrics, but has the other ranks' sums",
        ("1.9",),
        "the warning is printed",
    ),
    PrivateSymbol(
        "safetensors: number of the operating system's error",
        "SafetensorError carries the operating system's error only as text",
        ("0.8",),
        "the error is raised as it is",
    ),
    PrivateSymbol(
        "ray.train: text of how a worker process ended",
        "Ray Train describes a lost worker only in a long text",
        RAY_VERSIONS,
        "the whole text is shown",
    ),
    PrivateSymbol(
        "ray.job_submission: text of an unknown job",
        "the client raises RuntimeError alike for an unknown job and for a server that does not answer",
        RAY_VERSIONS,
        "the query is repeated for a minute",
    ),
)


def is_lost_connection(text: str) -> bool:
    """Whether an error's text is that of a connection between ranks that was lost or timed out."""
    return any(sign in text for sign in _CONNECTION_SIGNS)


def is_timeout(text: str) -> bool:
    """Whether the text of a connection's error is that of a time-out."""
    return any(sign in text for sign in _TIMEOUT_SIGNS)


def is_lost_loader_worker(text: str) -> bool:
    """Whether an error's text says that a DataLoader's worker process was lost."""
    return _LOADER_SIGN in text


def is_out_of_shared_memory(text: str) -> bool:
    """Whether the text of a lost loader worker's error says that /dev/shm was full."""
    return any(sign in text for sign in _SHARED_MEMORY_SIGNS)


def is_out_of_device_memory(text: str) -> bool:
    """Whether an error's class and text are those of a GPU whose memory is full."""
    return any(sign in text for sign in _DEVICE_MEMORY_SIGNS)


def is_out_of_host_memory(text: str) -> bool:
    """Whether an error's class and text are those of a host whose memory is full."""
    return any(sign in text for sign in _HOST_MEMORY_SIGNS)


def is_unused_parameters(text: str) -> bool:
    """Whether an error's text is DDP's about parameters that a step did not use."""
    return _UNUSED_SIGN in text


def is_port_taken(text: str) -> bool:
    """Whether an error's text says that another process listens on a port."""
    return any(sign in text for sign in _PORT_SIGNS)


def is_nccl_error(text: str) -> bool:
    """Whether an error comes from NCCL."""
    return _NCCL_SIGN in text


def is_failed_file(text: str) -> bool:
    """Whether an error's text is that of torch's file writer, which hides the operating system's error."""
    return any(sign in text for sign in _FILE_WRITER_SIGNS)


def is_broken_cuda(text: str) -> bool:
    """Whether an error's text says that this process can no longer use its GPU."""
    return _CUDA_SIGN in text


def safetensors_error_number(text: str) -> int | None:
    """The operating system's error number in the text of a SafetensorError, or None."""
    found = re.search(r"os error (\d+)", text)
    return None if found is None else int(found[1])


def ray_worker_exit(text: str) -> str:
    """How a worker process ended, out of Ray's text about it; the whole text if it has no such part."""
    found = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", text, re.MULTILINE)
    return found[1] if found else text


def is_unknown_ray_job(text: str) -> bool:
    """Whether a job server's error says that it does not know the job."""
    return "does not exist" in text


@contextmanager
def without_compute_warning() -> Iterator[None]:
    """Silences the warning of a metric that is computed on a rank that never updated it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*`compute`+ method of metric .* was called before")
        yield
