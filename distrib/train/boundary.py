"""The boundary between two steps: what is due there, in a fixed order, the same on every rank."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from distrib.train.checkpoint.saving import Saving
from distrib.train.control import Agreement, Control
from distrib.train.data.loader import StepBatch
from distrib.train.failure import NonFiniteLossError, PeerFailedError
from distrib.train.health.buffers import compare_buffers
from distrib.train.health.replicas import ReplicaCheck
from distrib.train.objective.evaluation import Evaluator
from distrib.train.objective.loss_accumulator import LossAccumulator
from distrib.train.optimization.precision import Precision
from distrib.train.phases import Phase
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.records import Records
from distrib.train.session.session import SessionControl
from distrib.train.state import TrainingState
from distrib.train.steps import Steps
from distrib.train.train_events import TrainEvents

_SHOWN_SAMPLES = 32


@dataclass(frozen=True)
class StepTimes:
    """How long a step took, in seconds: its computation, and the wait for its data before that."""

    compute_seconds: float
    data_seconds: float


class Trained(Protocol):
    """What is trained, as its boundary sees it; see `Training`."""

    @property
    def state(self) -> TrainingState:
        """All that a checkpoint holds."""

    @property
    def precision(self) -> Precision:
        """The precision, whose gradient scalers may skip updates."""

    @property
    def losses(self) -> LossAccumulator:
        """Adds up the losses of the steps."""

    @property
    def session(self) -> SessionControl | None:
        """What the user's code sees of the training, if it sees anything."""

    @property
    def learning_rates(self) -> float | dict[str, float]:
        """The learning rate, or those of several optimizers by name."""

    def after_step(self, completed_steps: int) -> None:
        """Advances schedules by steps and epochs."""

    def after_evaluation(self, results: dict[str, Any]) -> None:
        """Advances schedules by evaluations."""

    def take_warnings(self) -> list[str]:
        """What has been found out since the last call."""


class Ending:
    """Whether the job's own code has ended the training before its last step; part of checkpoints.

    Args:
        total_steps: The length of the run. If the run is extended, it continues.
    """

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self.has_come = False

    def state_dict(self) -> dict[str, Any]:
        """Whether it has come, and for which length of the run."""
        return {"has_come": self.has_come, "total_steps": self._total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.has_come = state["has_come"] and state["total_steps"] == self._total_steps


class StepBoundary:
    """Does what is due at the end of each step.

    The order is: step schedule, agreement, evaluation, metric schedule, best weights, checkpoint.

    Args:
        rank: This rank.
        training: What is trained.
        steps: What is due when.
        control: How the ranks agree.
        saving: Saves checkpoints and best weights.
        evaluator: Evaluates, if there is evaluation data.
        records: Writes events.
    """

    def __init__(
        self,
        rank: Rank,
        training: Trained,
        steps: Steps,
        *,
        control: Control,
        saving: Saving,
        evaluator: Evaluator | None,
        records: Records,
    ) -> None:
        self._rank = rank
        self._training = training
        self._steps = steps
        self.has_started = False
        self._control = control
        self._saving = saving
        self._evaluator = evaluator
        self._records = records
        self._events = TrainEvents(rank, steps, records)
        self._sample_ids: dict[int, list[int]] = {}
        self._is_stopped = False
        self._ending = Ending(steps.total_steps)
        training.state.register("ending", self._ending)

    @property
    def completed_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._training.state.completed_steps

    @property
    def is_finished(self) -> bool:
        """Whether the training has come to its end."""
        return self.completed_steps >= self._steps.total_steps or self._ending.has_come

    @property
    def has_ended(self) -> bool:
        """Whether no further step is to be run, since the training is finished or was stopped."""
        return self.is_finished or self._is_stopped

    def start(self, **facts: Any) -> None:
        """Writes the start event with `facts` about this attempt."""
        self.has_started = True
        self._control.resume_after(self.completed_steps)
        self._records.event("start", self.completed_steps, **facts)
        self._events.start([each["host"] for each in facts["ranks"]])
        self._call("on_start")

    def _call(self, method: str, *arguments: Any) -> None:
        """Calls a method of the job's callbacks."""
        session = self._training.session
        if session is not None and session.callbacks.has(method):
            with self._rank.progress.during(Phase.CALLBACKS):
                session.call(method, *arguments)

    def end_first_step(self) -> None:
        """Looks at what the first step has left, and gets ready for the first save in the background."""
        if self._rank.info.world_size > 1:
            for message in compare_buffers(self._training.state.models, RankTree(self._rank.control_group)):
                self._records.warn(self.completed_steps, message)
        self._saving.prepare()

    def end_step(self, batch: StepBatch, times: StepTimes) -> None:
        """Ends the step that ran `batch`."""
        training, plan = self._training, self._steps
        learning_rate = training.learning_rates
        training.state.completed_steps = step = self.completed_steps + 1
        self._sample_ids[step] = batch.sample_ids
        seconds = times.compute_seconds + times.data_seconds
        for message in training.take_warnings():
            self._records.warn(step, message)
        training.losses.end_step(batch.global_batch_size, seconds, times.data_seconds)
        self._rank.times.end_step(times.data_seconds)
        self._control.record_step(step, seconds)
        training.after_step(step)
        if training.session is not None:
            self._call("on_step", training.session.output)
        if plan.is_logged(step):
            self._end_window(learning_rate)
        is_evaluated = self._evaluator is not None and plan.is_evaluated(step)
        is_saved = self._saving.is_enabled and plan.is_saved(step)
        save_is_due = False
        may_end = training.session is not None and training.session.may_stop
        if self._control.is_due(step) or is_evaluated or is_saved or may_end or self.is_finished:
            agreement = self._exchange()
            self._is_stopped, save_is_due = agreement.stop, agreement.save
            if agreement.num_ended and not self.is_finished:
                self._end_early(agreement, learning_rate)
        progress = self._rank.progress
        if is_evaluated or (self._ending.has_come and plan.is_ever_evaluated):
            with progress.during(Phase.EVALUATION):
                self._evaluate()
            self._end_if_called(learning_rate)
        if self._saving.is_enabled and (is_saved or save_is_due or self.has_ended):
            with progress.during(Phase.CHECKPOINT):
                self._saving.save(training.state)
        if self.has_ended:
            progress.enter(Phase.CHECKPOINT)
            self._end()

    def _end_if_called(self, learning_rate: float | dict[str, float]) -> None:
        """Agrees on whether callbacks have ended the training in an evaluation."""
        session = self._training.session
        if session is None or not session.callbacks.has("on_evaluation") or self.is_finished:
            return
        agreement = self._exchange()
        self._is_stopped = self._is_stopped or agreement.stop
        if agreement.num_ended:
            self._end_early(agreement, learning_rate)

    def _end_window(self, learning_rate: float | dict[str, float]) -> None:
        """Ends the window of a train event with the step that has just ended."""
        step, training = self.completed_steps, self._training
        training.losses.end_window(step, time.time(), learning_rate)
        self._rank.times.end_window(step)
        if training.session is not None:
            training.session.logs(is_training=True).end_window(step)

    def _end_early(self, agreement: Agreement, learning_rate: float | dict[str, float]) -> None:
        """Ends the training with this step, which is logged, evaluated and saved as a last one is."""
        session = self._training.session
        reason = None if session is None else session.stop_reason
        if agreement.num_ended < self._rank.info.world_size:
            called = ", ".join(map(str, agreement.ended_ranks))
            message = f"only ranks {called} called session.stop, so training ends later than that step"
            self._records.warn(self.completed_steps, message)
        self._ending.has_come = True
        if not self._steps.is_logged(self.completed_steps):
            self._end_window(learning_rate)
            self._exchange()
        message = f"the job ended the training: {reason or 'another rank gave the reason'}"
        self._records.event("end", self.completed_steps, message=message)

    def _end(self) -> None:
        for message in self._training.take_warnings():  # of an evaluation at this very step
            self._records.warn(self.completed_steps, message)
        if self._saving.is_enabled:
            self._saving.finish_saving(self.completed_steps)
        else:
            self._compare_replicas()
        self._report_notices()
        self._records.share_warnings(self.completed_steps)
        if self.is_finished:
            self._call("on_end")
            self._saving.finish_best()
        else:
            if self._control.is_past_deadline:
                self._records.warn(self.completed_steps, "stopped: the time of train.time_limit is over")
            self._records.event("stop", self.completed_steps)

    def _compare_replicas(self) -> None:
        """Compares the ranks at the end of a run without checkpoints, each of which would do so."""
        replicas = ReplicaCheck(self._rank, self._training.state, self._rank.control_group)
        replicas.compare(replicas.checksums(), self.completed_steps)
        for message in replicas.take_warnings():
            self._records.warn(self.completed_steps, message)

    def _exchange(self) -> Agreement:
        session = self._training.session
        with self._rank.progress.during(Phase.REDUCE):  # on CUDA, the wait for the others' gradients ends here
            flushed = self._training.losses.flush(self.completed_steps)
        values = [*self._events.values(flushed.windows), float(self._records.num_warnings)]
        agreement = self._control.exchange(
            self.completed_steps,
            flushed.non_finite_step,
            values,
            save_status=self._saving.status,
            save_is_due=self._saving.is_due,
            is_ended=session is not None and session.stop_reason is not None,
        )
        logs = {} if session is None else session.logs(is_training=True).flush(self._rank.control_group)
        self._events.write(flushed.windows, agreement, logs)
        self._warn(flushed.weightless_steps)
        if agreement.non_finite is not None:
            self._refuse_non_finite(*agreement.non_finite)
        self._sample_ids.clear()
        self._saving.advance(agreement, self.completed_steps)
        self._report_notices()
        if agreement.sums[-1]:
            self._records.share_warnings(self.completed_steps)
        return agreement

    def _warn(self, weightless_steps: int) -> None:
        skipped = self._training.precision.skipped_updates()
        if skipped:
            self._records.warn(
                self.completed_steps,
                f"the gradient scaler skipped {skipped} update(s): gradients overflowed fp16; its scale was lowered",
            )
        if weightless_steps:
            message = f"{weightless_steps} step(s) had a global weight of 0: their gradients are zero"
            self._records.warn(self.completed_steps, message)

    def _report_notices(self) -> None:
        for notice in self._rank.storage.take_notices():
            self._records.warn(self.completed_steps, notice)

    def _evaluate(self) -> None:
        assert self._evaluator is not None
        started = time.perf_counter()
        state = self._training.state
        state.sync_buffers()
        session = self._training.session
        with nullcontext() if session is None else session.callbacks.averaged():
            results = self._evaluator.evaluate()
            self._saving.consider_best(results, state)
        self._training.after_evaluation(results)
        self._call("on_evaluation", results)
        self._records.event("eval", self.completed_steps, **results, eval_seconds=time.perf_counter() - started)

    def _refuse_non_finite(self, rank: int, step: int) -> None:
        """Ends the run on every rank; the rank whose loss it was names the samples."""
        if rank != self._rank.info.rank:
            raise PeerFailedError(f"the loss is not finite on rank {rank}")
        ids = self._sample_ids[step]
        more = f" and {len(ids) - _SHOWN_SAMPLES} more" if len(ids) > _SHOWN_SAMPLES else ""
        shown = ", ".join(map(str, ids[:_SHOWN_SAMPLES])) + more
        epoch, _ = self._steps.position(step - 1)
        raise NonFiniteLossError(
            f"the loss is not finite at step {step} (epoch {epoch + 1}) on rank {rank}, whose samples were {shown}; "
            "look at these samples, lower the learning rate or set train.clip_norm; a mean over targets of which these "
            "samples have none needs a weight"
        )
