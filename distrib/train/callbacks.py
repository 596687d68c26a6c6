"""The job's callbacks: objects that are called at fixed points of the training, on every rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distrib.train.session.mentions import mentions

if TYPE_CHECKING:
    from distrib.train.resolved_job import ResolvedJob
    from distrib.train.session.session import Session
    from distrib.train.state import TrainingState

METHODS = ("on_start", "on_step", "on_evaluation", "on_end")


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

    def register(self, state: TrainingState) -> None:
        """Makes the callbacks that have a state part of checkpoints."""
        for number, callback in enumerate(self._callbacks):
            if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
                state.register(f"callback.{number}", callback, is_checked=True)


def build_callbacks(resolved: ResolvedJob) -> Callbacks:
    """Builds the job's callbacks.

    Raises:
        JobError: One cannot be built, or has none of the methods that are called.
    """
    built = []
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
        built.append(callback)
    return Callbacks(built)
