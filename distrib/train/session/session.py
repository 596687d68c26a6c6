"""The session: the public object through which a job's own code reaches the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from distrib.runs.events import EVENT_FIELDS
from distrib.train.callbacks import Callbacks
from distrib.train.objective.task import TaskError
from distrib.train.optimization.precision import Precision
from distrib.train.optimization.update_randomness import UpdateRandomness
from distrib.train.phases import Phase
from distrib.train.rank import Rank
from distrib.train.session.gather import BackwardWeight, Gatherer
from distrib.train.session.logs import LogAccumulator
from distrib.train.session.minimize import Minimizer, Slice, read_loss
from distrib.train.session.reduction import GradientReducer
from distrib.train.state import TrainingState

Kept = TypeVar("Kept")

_MIB = 2**20
_KEPT = "kept."


@dataclass(frozen=True, kw_only=True)
class SessionRules:
    """What the user's code may do with a session.

    Attributes:
        can_minimize: Whether it drives its own updates.
        may_stop: Whether it may call `stop` in any step.
        accumulate: Micro-batches per step and rank.
        metrics: Names of metrics, which cannot be logged.
    """

    can_minimize: bool = True
    may_stop: bool = True
    accumulate: int = 1
    metrics: frozenset[str] = frozenset()


class Session:
    """A training as the job's own code sees it.

    A `step` with a parameter `session` gets it, and so do callbacks. `minimize`, `gather` and `sum` communicate: all
    ranks must call them equally often and in the same order. A rank without samples in a step runs the first sample of
    the global batch as a stand-in, which adds nothing to any of them.

    Attributes:
        rank: This rank, from 0.
        world_size: The number of ranks.
        local_rank: This rank among those of its host, from 0.
        device: The rank's device.
        seed: The job's seed.
        attempt: The attempt, from 0: one more after each restart.
        epoch: The current epoch, from 0.
        is_training: False during an evaluation.
    """

    def __init__(self, rank: Rank, state: TrainingState, precision: Precision, rules: SessionRules) -> None:
        self.rank = rank.info.rank
        self.world_size = rank.info.world_size
        self.local_rank = rank.info.local_rank
        self.device = rank.device
        self.seed = rank.settings.seed
        self.attempt = rank.config.attempt
        self.epoch = 0
        self.is_training = True
        self._state = state
        self._control_group = rank.control_group
        self._rules = rules
        self._logs = {True: LogAccumulator(), False: LogAccumulator()}
        self._slice = Slice(0, 0)
        self._losses: list[tuple[torch.Tensor, Any]] = []
        self._kept: dict[str, Any] = {}
        self._times = rank.times
        self._failure: BaseException | None = None
        self._stop_reason: str | None = None
        self._is_synced = True
        self._weight = BackwardWeight()
        group = dist.new_group() if self.world_size > 1 else dist.group.WORLD
        self._gatherer = Gatherer(group, rank.control_group, self._weight, rank.times)  # type: ignore[arg-type]
        self._progress = rank.progress
        self._randomness = UpdateRandomness(state, rank.settings.seed, self.rank)
        self._minimizer = Minimizer(
            state, precision, self._make_reducer(rank), self._randomness, rank.control_group, rank.settings.clip_norm
        )
        state.has_user_code = True
        state.register("logs", self._logs[True], per_rank=True)

    def _make_reducer(self, rank: Rank) -> GradientReducer:
        return GradientReducer(rank.control_group, rank.settings.ddp.bucket_mb * _MIB, self._weight, rank.times)

    @property
    def completed_steps(self) -> int:
        """Optimizer steps of the whole run that are done."""
        return self._state.completed_steps

    def minimize(
        self,
        loss: torch.Tensor | Callable[[], torch.Tensor],
        *,
        of: nn.Module | list[nn.Module] | None = None,
        optimizer: str | torch.optim.Optimizer | None = None,
        weight: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """Updates parameters once, along the gradient of the mean loss over the global batch.

        The update has the job's precision and clipping, and leaves the gradients of all other parameters alone.
        Parameters that no rank's loss depends on are not updated. In an evaluation nothing is updated.

        Args:
            loss: The mean loss over this rank's samples; or a function that returns it, called as often as the
                optimizer needs, for optimizers such as LBFGS.
            of: The modules to update; by default everything that the loss depends on.
            optimizer: Which optimizer to use, if the job has several; by default those of the parameters.
            weight: What the loss is a mean over, such as a number of tokens; by default the number of samples.

        Returns:
            This rank's loss, detached; of a function the first value.

        Raises:
            TaskError: The loss, the weight or what is to be updated cannot be used.
        """
        with self._collective("minimize"):
            if not self._rules.can_minimize:
                raise TaskError(
                    "session.minimize: distrib did not find this call before the training started, and has prepared "
                    "the model for a step that returns its loss; call session.minimize in the step function itself, "
                    "or in a function of its module"
                )
            if not self.is_training or not self._is_synced:
                value = read_loss(loss if isinstance(loss, torch.Tensor) else loss()).detach()
            else:
                checked = read_loss(loss) if isinstance(loss, torch.Tensor) else loss
                with self._progress.during(Phase.BACKWARD):
                    value = self._minimizer.minimize(checked, of, optimizer, weight, self._trained_part)
        self._losses.append((value, weight))
        return value

    @property
    def _trained_part(self) -> Slice:
        """This rank's part of the global batch that is trained on."""
        return self._slice

    def gather(self, tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The rows of all ranks in the order of the global batch, with gradients.

        Args:
            tensor: [rows, …], with any number of rows on each rank.

        Returns:
            All rows, and the position of this rank's first one among them.
        """
        with self._collective("gather"):
            return self._gatherer.gather(tensor, counts=self._slice.num_samples > 0)

    def sum(self, value: torch.Tensor | float) -> Any:
        """The sum over the ranks, added in rank order: the same bits on every rank. A tensor has no gradient."""
        with self._collective("sum"):
            tensor = torch.as_tensor(value).detach()
            mine = tensor.cpu() if self._slice.num_samples else torch.zeros_like(tensor, device="cpu")
            parts = [torch.empty_like(mine) for _ in range(self.world_size)]
            with self._times.waiting():
                dist.all_gather(parts, mine.contiguous(), group=self._control_group)
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            return total.to(tensor.device) if isinstance(value, torch.Tensor) else total.item()

    def log(self, **values: torch.Tensor | float) -> None:
        """Reports values in the next train or eval event, as means over the global batches since the last one.

        Args:
            values: Means over this rank's samples, as numbers or scalar tensors.

        Raises:
            TaskError: An event or a metric uses the name, or a value is not a scalar.
        """
        for name, value in values.items():
            if name in EVENT_FIELDS or name in self._rules.metrics:
                raise TaskError(f"session.log: the name '{name}' is used by {_owner(name)}; choose another one")
            if not isinstance(value, torch.Tensor | float | int) or (
                isinstance(value, torch.Tensor) and value.numel() != 1
            ):
                raise TaskError(f"session.log: {name} is a {type(value).__name__}, not a number or a scalar tensor")
        scalars = {
            name: value.reshape(()) if isinstance(value, torch.Tensor) else value for name, value in values.items()
        }
        self._logs[self.is_training].add(scalars, self._slice.num_samples)

    def keep(self, name: str, value: Kept, per_rank: bool = False) -> Kept:
        """Keeps an object in every checkpoint, and restores it if the run continues from one that has it.

        Args:
            name: Unique, without `/`.
            value: Has `state_dict` and `load_state_dict`, whose states consist of tensors, NumPy arrays, numbers, text
                and containers of these.
            per_rank: Whether each rank has a state of its own, which can only be restored at the same number of ranks.
                Otherwise all ranks must have the same.

        Returns:
            `value`; if something is already kept under this name, that.

        Raises:
            TaskError: It has no state, or the name cannot be used.
        """
        if name not in self._kept:
            if not all(callable(getattr(value, method, None)) for method in ("state_dict", "load_state_dict")):
                raise TaskError(
                    f"session.keep: a {type(value).__name__} has no state_dict and load_state_dict; keep an object "
                    "that has them"
                )
            if "/" in name:
                raise TaskError(f"session.keep: the name '{name}' contains '/'")
            self._state.register(f"{_KEPT}{name}", value, per_rank=per_rank, is_checked=not per_rank)
            self._kept[name] = value
        kept: Kept = self._kept[name]
        return kept

    def stop(self, reason: str) -> None:
        """Ends the training as finished: after this step if all ranks call it, otherwise at the next agreement."""
        self._stop_reason = self._stop_reason or reason

    @contextmanager
    def _collective(self, name: str) -> Iterator[None]:
        if self._failure is not None:
            raise TaskError(
                f"session.{name}: an earlier call failed on this rank, so the ranks no longer agree: "
                f"{type(self._failure).__name__}: {self._failure}"
            ) from self._failure
        if self._rules.accumulate > 1:
            raise TaskError(
                f"session.{name}: does not work with train.accumulate {self._rules.accumulate}: a step sees the whole "
                "slice of its rank; set train.accumulate to 1"
            )
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise


class SessionControl:
    """The engine's side of a session: what it sets before, and reads after, the job's code has run.

    Attributes:
        session: The session.
        callbacks: The job's callbacks, which get it.
        output: What the newest forward pass gave.
    """

    def __init__(self, session: Session, callbacks: Callbacks) -> None:
        self.session = session
        self.callbacks = callbacks
        self.output: Any = None

    def begin(self, part: Slice, *, epoch: int | None = None, is_training: bool = True, is_synced: bool = True) -> None:
        """Prepares the session for a batch."""
        session = self.session
        session._slice, session.is_training, session._is_synced = part, is_training, is_synced
        session.epoch = session.epoch if epoch is None else epoch
        session._losses = []

    @contextmanager
    def weighing(self, weight: torch.Tensor | float) -> Iterator[None]:
        """Around the backward pass of a loss that the job's code has returned, of this weight."""
        self.session._weight.value = weight
        try:
            yield
        finally:
            self.session._weight.value = None

    @property
    def minimized(self) -> list[tuple[torch.Tensor, Any]]:
        """The losses, with their weights, that the batch has minimized."""
        return self.session._losses

    def logs(self, *, is_training: bool) -> LogAccumulator:
        """The logged values of training, or of evaluation."""
        return self.session._logs[is_training]

    @property
    def may_stop(self) -> bool:
        """Whether the job's code may call `stop` in any step, so that the ranks agree after each."""
        return self.session._rules.may_stop or self.callbacks.may_stop_in_steps

    def call(self, method: str, *arguments: Any) -> None:
        """Calls a method of the job's callbacks."""
        self.callbacks.call(method, self.session, *arguments)

    @property
    def stop_reason(self) -> str | None:
        """Why the job's code wants to stop, if it does."""
        return self.session._stop_reason


def _owner(name: str) -> str:
    return "events" if name in EVENT_FIELDS else "a metric"
