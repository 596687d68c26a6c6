"""DistributedDataParallel: every rank has the whole model, and gradients are averaged during the backward pass."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.pytorch import ddp as ddp_internals
from distrib.errors import TrainingFailedError
from distrib.job.plan import Memory
from distrib.train.checkpoint.buffers import buffer_forms, put_buffer
from distrib.train.checkpoint.extra_state import extra_states, has_extra_state, is_expanded, set_extra_states
from distrib.train.checkpoint.parts import LOSS, MODEL
from distrib.train.strategy import replicated
from distrib.train.strategy.base import StrategySettings, Tensors

_MAX_NAMES = 3


@dataclass(frozen=True)
class _Wrapped:
    """A model, DDP around it unless it is frozen, its parameters, and which of them DDP synchronizes."""

    ddp: DistributedDataParallel | None
    parameters: tuple[nn.Parameter, ...]
    are_synced: list[bool]

    @classmethod
    def of(cls, model: nn.Module, ddp: DistributedDataParallel | None) -> _Wrapped:
        """A model that has just been wrapped."""
        parameters = tuple(model.parameters())
        return cls(ddp, parameters, _trainable(parameters))


class Ddp:
    """The strategy of two and more ranks that each have the whole model; see `Strategy`.

    Its state is the order in which each model's gradients are summed, as names of parameters, so that a resumed run
    sums in the order of the uninterrupted one.
    """

    def __init__(self, settings: StrategySettings) -> None:
        self._settings = settings.training.ddp
        self._device = settings.device
        self._rank = settings.rank
        self._world_size = settings.world_size
        self._wrapped: dict[str, _Wrapped] = {}
        self._ready_orders: dict[str, list[str]] = {}
        self._compression: Any = None
        if self._settings.compress == "powersgd":
            from distrib.train.strategy.compression import PowerSgd

            self._compression = PowerSgd(self._settings.powersgd, settings.training.seed, self._device)

    @property
    def per_rank_state(self) -> Any | None:
        """What compression has left out of this rank's gradients."""
        return None if self._compression is None else self._compression.errors

    def wrap(self, model: nn.Module, name: str) -> nn.Module:
        """`model` in DDP; itself while all of its parameters are frozen, which DDP refuses."""
        before = self._wrapped.pop(name, None)
        if before is not None and before.ddp is not None:
            ddp_internals.detach(before.ddp)
        if not any(_trainable(tuple(model.parameters()))):
            self.broadcast(model)
            self._wrapped[name] = _Wrapped.of(model, None)
            return model
        with _odd_tensors_named(model):
            ddp = ddp_internals.with_ready_order(
                model,
                self._ready_orders.pop(name, None),
                device_ids=[self._device.index] if self._device.type == "cuda" else None,
                bucket_cap_mb=self._settings.bucket_mb,
                find_unused_parameters=self._settings.find_unused_parameters,
                gradient_as_bucket_view=True,
                init_sync=before is None,  # ranks may have grown buffers to other sizes since
            )
        if name == MODEL:  # hooks that remember what they left out have one memory, by number of bucket
            self._compress(ddp)
        self._wrapped[name] = _Wrapped.of(model, ddp)
        return ddp

    def is_outdated(self, name: str) -> bool:
        """Whether other parameters require gradients than when the model was wrapped."""
        wrapped = self._wrapped[name]
        return _trainable(wrapped.parameters) != wrapped.are_synced

    def _compress(self, ddp: DistributedDataParallel) -> None:
        if self._compression is not None:
            self._compression.register(ddp)
        elif self._settings.compress != "none":
            from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

            hooks = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}
            ddp.register_comm_hook(None, hooks[self._settings.compress])

    def without_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """DDP's `no_sync`."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def finish_backward(self, name: str) -> None:
        """Makes sure that DDP has averaged all gradients, and averages those that it does not know of yet.

        These belong to parameters that the forward pass has unfrozen.
        """
        wrapped = self._wrapped[name]
        if not self.is_outdated(name):
            self._check_complete(name, wrapped.ddp)
            return
        is_frozen = [not parameter.requires_grad for parameter in wrapped.parameters]
        is_incomplete = wrapped.ddp is not None and ddp_internals.parameters_without_gradient(wrapped.ddp)
        if is_incomplete and any(map(operator.and_, is_frozen, wrapped.are_synced)):
            raise TrainingFailedError(
                "parameters were frozen during a step, so the gradients were not synchronized between the ranks; set "
                "ddp.find_unused_parameters: true"
            )
        for parameter, is_synced in zip(wrapped.parameters, wrapped.are_synced, strict=True):
            if parameter.requires_grad and not is_synced:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= self._world_size

    def _check_complete(self, name: str, ddp: DistributedDataParallel | None) -> None:
        """Refuses a step that leaves gradients unsynchronized since the loss did not reach all parameters."""
        missing = [] if ddp is None else ddp_internals.parameters_without_gradient(ddp)
        if not missing:
            return
        prefix = f"{LOSS}." if name == LOSS else ""
        more = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
        names = ", ".join(f"{prefix}{parameter}" for parameter in missing[:_MAX_NAMES])
        raise TrainingFailedError(
            f"parameters were not used in this step, so the gradients were not synchronized between the ranks: {names}"
            f"{more}; set ddp.find_unused_parameters: true, or freeze them or remove them from the model"
        )

    def clip(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Clips the gradients, which are equal on every rank."""
        return replicated.clip(parameters, max_norm)

    def broadcast(self, model: nn.Module) -> None:
        """Sends the parameters, buffers and extra state of rank 0."""
        with _odd_tensors_named(model):
            for parameter in model.parameters():
                _send(parameter.detach())
            self.sync_buffers(model)

    def sync_buffers(self, model: nn.Module) -> None:
        """Broadcasts the buffers and the extra state of rank 0.

        A rank may have grown a buffer to another size, or not have it yet. If it is part of the model's state, it gets
        that of rank 0; otherwise it keeps what it has computed.
        """
        forms = [buffer_forms(model) if self._rank == 0 else []]
        dist.broadcast_object_list(forms, src=0, device=self._device)
        buffers = dict(model.named_buffers())
        for form in forms[0]:
            own = buffers.get(form.name)
            if own is not None and form.fits(own):
                _send(own)
                continue
            received = torch.empty(form.shape, dtype=form.dtype, device=self._device)
            _send(received)
            if form.is_persistent:
                put_buffer(model, form.name, received)
        if any(has_extra_state(part) for part in model.modules()):
            shared = [extra_states(model) if self._rank == 0 else None]
            dist.broadcast_object_list(shared, src=0, device=self._device)
            if self._rank != 0:
                set_extra_states(model, shared[0] or {})

    def share(self, tensors: Tensors) -> Tensors:
        """Whole tensors, about as many bytes for each rank."""
        return replicated.share_of(tensors, self._rank, self._world_size)

    def allocate(self, shape: torch.Size, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
        """An empty tensor of the whole shape."""
        return replicated.allocate(shape, dtype, like)

    def full_weights(self, model: nn.Module) -> Tensors | None:
        """Rank 0's tensors."""
        return replicated.full_weights(model) if self._rank == 0 else None

    def memory(self, whole: Memory) -> Memory:
        """All of it, on every rank."""
        return replicated.memory(whole)

    def gradient_buckets(self, wrapped: nn.Module) -> list[list[int]] | None:
        """DDP's buckets; unknown with unused parameters, for which DDP keeps its first ones."""
        if not isinstance(wrapped, DistributedDataParallel):
            return []
        buckets = ddp_internals.bucket_layout(wrapped)
        num_gradients = sum(_trainable(tuple(wrapped.parameters())))
        return buckets if sum(map(len, buckets)) == num_gradients else None

    def gradient_bytes(self, wrapped: nn.Module) -> list[float]:
        """The sizes of DDP's buckets."""
        return ddp_internals.bucket_bytes(wrapped) if isinstance(wrapped, DistributedDataParallel) else []

    def state_dict(self) -> dict[str, Any]:
        """The order of each model's gradients; none before DDP has rebuilt its buckets, and while it is outdated."""
        wrappers = {
            name: wrapped.ddp
            for name, wrapped in self._wrapped.items()
            if wrapped.ddp is not None and not self.is_outdated(name)
        }
        orders = {name: ddp_internals.ready_order(ddp) for name, ddp in wrappers.items()}
        state: dict[str, Any] = {"ready_orders": {name: order for name, order in orders.items() if order is not None}}
        return state if self._compression is None else {**state, "compression": self._compression.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sets the order in which the gradients of the models that are wrapped next are summed."""
        self._ready_orders = dict(state.get("ready_orders", {}))
        if self._compression is not None and "compression" in state:
            self._compression.load_state_dict(state["compression"])


def _trainable(parameters: tuple[nn.Parameter, ...]) -> list[bool]:
    return [parameter.requires_grad for parameter in parameters]


def _send(tensor: torch.Tensor) -> None:
    """Gives every rank the values of rank 0, whatever the layout in memory."""
    values = tensor.contiguous()
    dist.broadcast(values, src=0)
    if values is not tensor:
        tensor.copy_(values)


@contextmanager
def _odd_tensors_named(model: nn.Module) -> Iterator[None]:
    """Explains an error about tensors that ranks cannot send each other."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        odd = [name for name, tensor in tensors if _is_odd(tensor)]
        if not odd:
            raise
        raise TrainingFailedError(
            f"model: {', '.join(odd[:_MAX_NAMES])}: ranks cannot send each other such tensors "
            f"({str(error).splitlines()[0]}); clone expanded ones, and keep others out of the buffers or train on "
            "one worker"
        ) from error


def _is_odd(tensor: torch.Tensor) -> bool:
    """Whether not every backend can send a tensor: 8-bit floats, quantized, sparse and expanded ones."""
    is_short = tensor.is_floating_point() and tensor.element_size() == 1
    return is_short or tensor.is_quantized or tensor.layout != torch.strided or is_expanded(tensor)
