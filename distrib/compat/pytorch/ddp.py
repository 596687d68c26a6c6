"""The order in which DistributedDataParallel sums gradients, read and chosen.

DDP starts with one bucket for all gradients and, after its first backward pass, rebuilds its buckets in the order in
which the gradients became ready. A process that resumes a run would therefore reduce its first step in another order
than the uninterrupted run did, and at three or more ranks the sums differ in the last bits.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

_PLAIN_DDP = "DDP's own order: a resumed run is exact up to rounding only"
SYMBOLS = (
    PrivateSymbol(
        "torch.nn.parallel.DistributedDataParallel._get_ddp_logging_data",
        "which parameters share a bucket, which decides how communication overlaps the backward pass",
        TORCH_VERSIONS,
        "the buckets are unknown",
    ),
    PrivateSymbol(
        "torch.nn.parallel.DistributedDataParallel._build_params_for_reducer",
        "the order of parameters, which numbers them in the buckets",
        TORCH_VERSIONS,
        _PLAIN_DDP,
    ),
    PrivateSymbol(
        "torch.nn.parallel.DistributedDataParallel._remove_autograd_hooks",
        "detaches a wrapper that another one replaces, once other parameters require gradients",
        TORCH_VERSIONS,
        "the hooks of the replaced wrapper stay until it is collected",
    ),
    PrivateSymbol(
        "torch.nn.parallel.DistributedDataParallel._check_reducer_finalized",
        "whether a backward pass has synchronized all gradients; DDP itself checks at the next forward pass only",
        TORCH_VERSIONS,
        "unused parameters are an error of DDP's in the next step, and none after the last",
    ),
    PrivateSymbol(
        "torch.distributed.Reducer._push_all_rebuilt_params",
        "marks all gradients as ready, in the order of parameters, so that the buckets can be rebuilt at once",
        TORCH_VERSIONS,
        _PLAIN_DDP,
    ),
    PrivateSymbol(
        "torch.distributed.Reducer._rebuild_buckets",
        "rebuilds the buckets now instead of before the next forward pass; DDP does so only once",
        TORCH_VERSIONS,
        _PLAIN_DDP,
    ),
    PrivateSymbol(
        "torch.distributed.Logger.set_runtime_stats_and_log",
        "refreshes the logging data after the buckets were rebuilt",
        TORCH_VERSIONS,
        _PLAIN_DDP,
    ),
    PrivateSymbol(
        "torch.nn.parallel.DistributedDataParallel.broadcast_buffers",
        "buffers are sent when the model is wrapped but not before forward passes; torch 2.11 has one argument for "
        "both, so this attribute is changed in between",
        TORCH_VERSIONS,
        "torch 2.13 and newer have the argument forward_sync_buffers, which is used instead",
    ),
)
_NEEDED = (
    (DistributedDataParallel, "_build_params_for_reducer"),
    (DistributedDataParallel, "_get_ddp_logging_data"),
    (dist.Reducer, "_push_all_rebuilt_params"),
    (dist.Reducer, "_rebuild_buckets"),
    (dist.Logger, "set_runtime_stats_and_log"),
)
_BUFFERS = "forward_sync_buffers"


def is_supported() -> bool:
    """Whether this torch has every private name that choosing an order needs."""
    return all(hasattr(owner, name) for owner, name in _NEEDED)


class _OrderedDdp(DistributedDataParallel):
    """DDP whose buckets are those of a given ready order from the first step on, and are not rebuilt.

    Parameters are numbered in that order. Marking all of them as ready and rebuilding at once makes the buckets that
    DDP itself made when it saw the gradients become ready in this order.
    """

    def __init__(self, module: nn.Module, names: list[str], **settings: Any) -> None:
        self.ready_order = names
        super().__init__(module, **settings)
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[nn.Parameter], list[bool]]:
        parameters, are_sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        position = {name: number for number, name in enumerate(self.ready_order)}
        order = sorted(range(len(parameters)), key=lambda i: position[names[id(parameters[i])]])
        return [parameters[i] for i in order], [are_sparse[i] for i in order]


def with_ready_order(module: nn.Module, names: list[str] | None, **settings: Any) -> DistributedDataParallel:
    """Wraps `module` in DDP whose gradients are summed in the given order.

    All ranks get rank 0's parameters and buffers now; forward passes do not send buffers.

    Args:
        module: The model.
        names: What `ready_order` returned for the same model, or None for DDP's own order. Ignored if it does not
            have the names of exactly the parameters that require gradients.
        settings: For DDP.
    """
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    has_argument = _BUFFERS in inspect.signature(DistributedDataParallel.__init__).parameters
    all_settings = {**settings, _BUFFERS: False} if has_argument else settings
    if names is None or sorted(names) != sorted(trainable) or not is_supported():
        model = DistributedDataParallel(module, **all_settings)
    else:
        model = _OrderedDdp(module, names, **all_settings)
    model.broadcast_buffers = False
    return model


def ready_order(model: DistributedDataParallel) -> list[str] | None:
    """The names of the parameters in the order of DDP's buckets; None while they are the initial ones.

    After the first backward pass, rebuilds the buckets as the next forward pass would. All ranks call it together.
    """
    if isinstance(model, _OrderedDdp):
        return model.ready_order
    if not is_supported():
        return None
    model.reducer._rebuild_buckets()
    names = {id(parameter): name for name, parameter in model.module.named_parameters()}
    parameters, _ = model._build_params_for_reducer()  # type: ignore[no-untyped-call]
    numbered = [names[id(parameter)] for parameter in parameters]
    buckets = _rebuilt_buckets(model)
    return [numbered[number] for bucket in buckets for number in bucket] or None


def parameters_without_gradient(model: DistributedDataParallel) -> list[str]:
    """The names of the parameters whose gradients DDP still waits for after a backward pass; mostly none."""
    if not hasattr(model, "_check_reducer_finalized"):
        return []
    try:
        model._check_reducer_finalized()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        names = {id(parameter): name for name, parameter in model.module.named_parameters()}
        parameters, _ = model._build_params_for_reducer()  # type: ignore[no-untyped-call]
        found = re.search(r"did not receive grad for rank \d+: ([\d ]+)", str(error))
        numbers = [] if found is None else [int(number) for number in found[1].split()]
        missing = [parameters[number] for number in numbers if number < len(parameters)]
        missing = missing or [parameter for parameter in parameters if parameter.grad is None]
        return [names[id(parameter)] for parameter in missing] or ["some"]
    return []


def bucket_layout(model: DistributedDataParallel) -> list[list[int]]:
    """DDP's buckets in the order in which they are reduced, as numbers of parameters that require gradients."""
    return _rebuilt_buckets(model) or _numbers(model, "initial_bucket_size_per_param")


def bucket_bytes(model: DistributedDataParallel) -> list[float]:
    """The sizes of DDP's buckets, as it logs them."""
    sizes = str(_logging_data(model).get("bucket_sizes", ""))
    return [float(size) for size in sizes.split(",") if size.strip()]


def detach(model: DistributedDataParallel) -> None:
    """Removes the hooks of a wrapper from its parameters, so that another can take its place."""
    if hasattr(model, "_remove_autograd_hooks"):
        model._remove_autograd_hooks()  # type: ignore[no-untyped-call]


def _rebuilt_buckets(model: DistributedDataParallel) -> list[list[int]]:
    if not _logging_data(model).get("rebuilt_per_bucket_param_indices") and model.logger is not None:
        model.logger.set_runtime_stats_and_log()
    return _numbers(model, "rebuilt_per_bucket_param_indices")


def _numbers(model: DistributedDataParallel, name: str) -> list[list[int]]:
    """An entry of the logging data such as `"5 4 7 6, 3 2, 1 0"` as lists of numbers."""
    text = str(_logging_data(model).get(name, ""))
    return [[int(number) for number in bucket.split()] for bucket in text.split(",") if bucket.strip()]


def _logging_data(model: DistributedDataParallel) -> dict[str, Any]:
    read = getattr(model, "_get_ddp_logging_data", None)
    return {} if read is None else dict(read())
