"""The way out of errors whose own text does not name it."""

from __future__ import annotations

from distrib.compat import messages

_RULES = (
    (
        messages.is_out_of_device_memory,
        "the GPU's memory is full: lower data.batch_size, raise train.accumulate or resources.workers, or set "
        "train.precision to bf16; `distrib plan JOB --try` measures what a batch needs",
    ),
    (
        messages.is_out_of_host_memory,
        "the host's memory is full: lower data.batch_size or data.loader_workers, let the dataset read samples only "
        "when they are needed, or use hosts with more memory (resources.memory_per_worker reserves it)",
    ),
    (
        messages.is_unused_parameters,
        "the loss does not depend on all parameters in every step: set ddp.find_unused_parameters to true, or freeze "
        "the parameters that are not used",
    ),
    (
        messages.is_port_taken,
        "another program uses the port: choose another one, or 0 for any free port, and look for a process that an "
        "earlier run left (`ss -ltnp`)",
    ),
    (
        lambda text: messages.is_lost_loader_worker(text) and messages.is_out_of_shared_memory(text),
        "/dev/shm is full: start the container with more of it (docker run --shm-size=8g), or lower "
        "data.loader_workers",
    ),
    (
        messages.is_lost_loader_worker,
        "a loader worker was lost. Killed: probably the host's memory is full, lower data.loader_workers; another "
        "signal: a library crashed in the dataset, which data.loader_workers=0 shows",
    ),
    (
        messages.is_nccl_error,
        "NCCL failed: `distrib doctor JOB` checks drivers, interfaces and links; NCCL_DEBUG=INFO writes the reason to "
        "the log",
    ),
)


def advice_for(type_name: str, message: str) -> str | None:
    """What to do about an error; None if nothing is known about it.

    Args:
        type_name: The name of the exception's class.
        message: Its text.
    """
    text = f"{type_name}: {message}"
    return next((advice for is_it, advice in _RULES if is_it(text)), None)
