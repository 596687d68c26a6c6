"""The job's callbacks: objects that are called at fixed points of the training, on every rank."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from distrib.train.session.mentions import mentions

if TYPE_CHECKING:
    from torch import nn

    from distrib.train.resolved_job import ResolvedJob
    from distrib.train.session.session import Session
    from distrib.train.state import TrainingState

METHODS = ("on_start", "on_step", "on_evaluation", "on_end")


@runtime_checkable
class AveragesWeights(Protocol):
    """A callback that keeps other weights beside those of the model, such as `distrib.callbacks:Ema`."""

    def attach(self, model: nn.Module) -> None:
        """Begins with the weights of the unwrapped model; called once, before anything is restored."""

    def applied(self) -> AbstractContextManager[None]:
        """A context in which the model has the other weights."""


class Callbacks:
    """Calls the methods that the job's callbacks have, in the order of the spec.

    Args:
        callbacks: The objects.
    """

    def __init__(self, callbacks: list[Any]) -> None:
        self._callbacks = callbacks

    def call(self, method: str, session: Session, *arguments: Any) -> None:
        """Calls `method` of the callbacks that have it."""
        for callback in self._callbacks:
            function = getattr(callback, method, None)
            if function is not None:
                function(session, *arguments)

    def has(self, method: str) -> bool:
        """Whether a callback has `method`."""
        return any(hasattr(callback, method) for callback in self._callbacks)

    @property
    def may_stop_in_steps(self) -> bool:
        """Whether a callback stops the training in `on_step`."""
        functions = (getattr(callback, "on_step", None) for callback in self._callbacks)
        return any(function is not None and mentions(function, "stop") for function in functions)

    @property
    def averages(self) -> AveragesWeights | None:
        """The callback that keeps other weights, if there is one."""
        return next((each for each in self._callbacks if isinstance(each, AveragesWeights)), None)

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the model has the weights to evaluate."""
        return nullcontext() if self.averages is None else self.averages.applied()

    def register(self, state: TrainingState) -> None:
        """Makes the callbacks that have a state part of checkpoints; averages begin with the model's weights."""
        if self.averages is not None:
            self.averages.attach(state.model)
        for number, callback in enumerate(self._callbacks):
            if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
                is_checked = callback is not self.averages  # which are as equal on all ranks as the model's weights
                state.register(f"callback.{number}", callback, is_checked=is_checked)


def build_callbacks(resolved: ResolvedJob) -> Callbacks:
    """Builds the job's callbacks.

    Raises:
        JobError: One cannot be built, or has none of the methods that are called.
    """
    built: list[Any] = []
    for number, (target, factory) in enumerate(zip(resolved.job.spec.callbacks, resolved.callbacks, strict=True)):
        field = f"callbacks.{number}"
        try:
            callback = factory(**target.args)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise resolved.job.error(field, f"{target.target} could not be built: {reason}") from error
        if not any(callable(getattr(callback, method, None)) for method in METHODS):
            raise resolved.job.error(
                field, f"{target.target} gives a {type(callback).__name__} with none of {', '.join(METHODS)}"
            )
        if isinstance(callback, AveragesWeights) and any(isinstance(each, AveragesWeights) for each in built):
            raise resolved.job.error(field, f"{target.target}: another callback averages weights already; remove one")
        built.append(callback)
    return Callbacks(built)
