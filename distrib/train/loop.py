"""The loop: steps, and what is due at the end of each."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from distrib.job.plan import StepPlan
from distrib.runs.events import EventWriter
from distrib.runs.storage.errors import storage_problem
from distrib.train.checkpoint.saving import Saving
from distrib.train.context import RankInfo
from distrib.train.control import Agreement, Control, gather_rows, is_failed
from distrib.train.data.loader import StepBatch, StepLoader
from distrib.train.data.sample_record import SampleRecord
from distrib.train.data.sampler import GlobalBatchSampler
from distrib.train.evaluation import Evaluator
from distrib.train.failure import NonFiniteLossError, PeerFailedError
from distrib.train.loss_accumulator import LogWindow, LossAccumulator, Settled
from distrib.train.optimizer import SchedulerState
from distrib.train.precision import Precision
from distrib.train.randomness import derive_seed, reseed
from distrib.train.step import TrainStep
from distrib.train.strategy.ddp import broadcast_buffers
from distrib.train.task import Task


class Loop:
    """Trains from one position to the end of the schedule, or to the step at which all ranks agree to stop.

    Args:
        place: Where this rank stands.
        seed: The job's seed.
        schedule: What is due when.
        task: The model to evaluate.
        loader: Gives each step's batches.
        sampler: Says which samples those are.
        stepper: Computes and applies each step's gradient.
        rates: The learning-rate schedule.
        optimizer: Tells the learning rate.
        control: Where the ranks agree.
        precision: Tells of updates that fp16 skipped.
        evaluator: Evaluates, where there is evaluation data.
        events: Where events go; None on other ranks than 0.
        samples: Where the ids of samples go; None unless they are recorded.
        device: Where losses are computed.
        control_group: The gloo group of `control`.
        first_step: The steps that earlier attempts have completed.
    """

    def __init__(
        self,
        *,
        place: RankInfo,
        seed: int,
        schedule: StepPlan,
        task: Task,
        loader: StepLoader,
        sampler: GlobalBatchSampler,
        stepper: TrainStep,
        rates: SchedulerState,
        optimizer: Any,
        control: Control,
        precision: Precision,
        evaluator: Evaluator | None,
        events: EventWriter | None,
        samples: SampleRecord | None,
        device: torch.device,
        control_group: dist.ProcessGroup,
        first_step: int,
    ) -> None:
        self._place = place
        self._seed = seed
        self._schedule = schedule
        self.task = task
        self._loader = loader
        self._sampler = sampler
        self._stepper = stepper
        self._rates = rates
        self._optimizer = optimizer
        self._device = device
        self._ledger = LossAccumulator(device, is_weighted=False)
        self._control = control
        self._precision = precision
        self._evaluator = evaluator
        self._events = events
        self._samples = samples
        self._control_group = control_group
        self._saving = Saving(None, None, schedule)
        self.completed_steps = first_step
        self._data_seconds = 0.0
        self._stall: dict[str, float] = {}

    def begin(self, is_weighted: bool, saving: Saving, facts: dict[str, Any]) -> None:
        """Prepares for the first step.

        Args:
            is_weighted: Whether the user's step gives weights.
            saving: Saves checkpoints.
            facts: What the start event says of this attempt.
        """
        self._ledger = LossAccumulator(self._device, is_weighted)
        self._saving = saving
        self._control.resume_after(self.completed_steps)
        self._write("start", self.completed_steps, world_size=self._place.world_size, **facts)

    def flush(self) -> None:
        """Writes the events and samples that a full disk has not taken before; OSError where it still does not."""
        if self._events is not None:
            self._events.flush()
        if self._samples is not None:
            self._samples.flush()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the loop, the same on every rank; all ranks call it together."""
        rows = gather_rows(self._ledger.carried, self._control_group)
        return {
            "completed_steps": self.completed_steps,
            "carried": rows,
            "rates": self._rates.state(),
            "scaler": self._precision.scaler.state_dict(),
            "best": None if self._saving.best is None else self._saving.best.value,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up `state`, at whatever number of ranks; call it after `begin`."""
        self._rates.restore(state["rates"])
        self._precision.restore(state["scaler"])
        if self._saving.best is not None:
            self._saving.best.value = state["best"]
        rows = state["carried"]
        if len(rows) == self._place.world_size:
            mine = rows[self._place.rank]
        else:  # sums are rank 0's then: only their total counts
            mine = [sum(row[0] for row in rows), sum(row[1] for row in rows), *rows[0][2:]]
            mine = mine if self._place.rank == 0 else [0.0, 0.0, *rows[0][2:]]
        self._ledger.carry(mine)

    def run(self, first: StepBatch) -> bool:
        """Trains to the end, beginning with the batch `first`; returns whether it got there (else it was stopped)."""
        batch = first
        is_first = True
        while True:
            started = time.perf_counter()
            self._train(batch)
            seconds = time.perf_counter() - started
            is_stopped = self._end_step(batch, seconds)
            if self.completed_steps == self._schedule.total_steps or is_stopped:
                self._finish_saving()
                self._pass_on_notices()
                if self.completed_steps < self._schedule.total_steps:
                    self._write("stop", self.completed_steps)
                else:
                    self._saving.finish()
                return self.completed_steps == self._schedule.total_steps
            if is_first:
                self._saving.prepare()
                is_first = False
            loading = time.perf_counter()
            batch = self._loader.next()
            self._data_seconds = time.perf_counter() - loading

    def _train(self, batch: StepBatch) -> None:
        reseed(derive_seed("step", self._seed, self.completed_steps, self._place.rank))
        self._stepper.forward_backward(batch, self._ledger)
        if self._samples is not None:
            self._samples.write(batch, self.completed_steps + 1)
        self._stepper.update()
        self._loader.prefetch()

    def _end_step(self, batch: StepBatch, seconds: float) -> bool:
        """Does what is due after a step, in this order; returns whether the ranks have agreed to stop."""
        schedule = self._schedule
        rate = self._optimizer.param_groups[0]["lr"]
        self.completed_steps = step = self.completed_steps + 1
        self._ledger.end_step(schedule.batch_size_at(batch.step), seconds + self._data_seconds, self._data_seconds)
        self._rates.after_step(step)
        if schedule.is_logged(step):
            self._ledger.end_window(step, time.time(), float(rate))
        is_evaluated = self._evaluator is not None and schedule.is_evaluated(step)
        is_saved = self._saving.is_enabled and schedule.is_saved(step)
        stop = save = False
        if self._control.is_due(step) or is_evaluated or is_saved or step == schedule.total_steps:
            agreement = self._exchange(seconds)
            stop, save = agreement.stop, agreement.save
        if is_evaluated:
            self._evaluate()
        if self._saving.is_enabled and (is_saved or save or stop):
            self._save()
        return stop

    def _exchange(self, step_seconds: float) -> Agreement:
        settled = self._ledger.settle(self.completed_steps)
        sums = [value for window in settled.windows for value in (window.loss_sum, window.weight_sum)]
        agreement = self._control.exchange(
            self.completed_steps,
            step_seconds,
            settled.non_finite_step,
            sums,
            save_status=self._saving.status,
            wants_save=self._saving.wants_save,
        )
        self._write_windows(settled.windows, agreement)
        self._warn(settled)
        if agreement.non_finite is not None:
            self._refuse_non_finite(*agreement.non_finite)
        if agreement.is_save_failed:
            self._give_up()
        elif agreement.is_saved:
            self._commit()
        self._pass_on_notices()
        return agreement

    def _save(self) -> None:
        """Begins a checkpoint of this very step; one that is still in flight is waited for."""
        started = time.perf_counter()
        if self._saving.is_saving:
            self._finish_saving()
        waited = time.perf_counter() - started
        broadcast_buffers(self.task.model)
        self._saving.begin(self.completed_steps, self.state())
        self._stall = {"wait_seconds": waited, "stall_seconds": time.perf_counter() - started - waited}

    def _finish_saving(self) -> None:
        """Waits until the save in flight, if there is one, is committed or given up."""
        while self._saving.is_saving:
            self._saving.wait()
            if is_failed([row[0] for row in gather_rows([float(self._saving.status)], self._control_group)]):
                self._give_up()
            else:
                self._commit()

    def _commit(self) -> None:
        try:
            committed = self._saving.commit()
        except OSError as error:
            self._warn_of_lost_save(self.completed_steps, storage_problem(error, "the checkpoint") or str(error))
            return
        if committed is not None:
            self._write("checkpoint", committed[0], save_seconds=committed[1], **self._stall)

    def _give_up(self) -> None:
        """Goes on without a checkpoint that could not be kept; the ranks tell rank 0 why."""
        step, problem = self._saving.give_up()
        problems: list[str | None] = [None] * self._place.world_size
        dist.all_gather_object(problems, problem, group=self._control_group)
        told = [text for text in problems if text is not None]
        others = f" (as {len(told)} ranks say)" if len(told) > 1 else ""
        self._warn_of_lost_save(step, told[0] + others)

    def _warn_of_lost_save(self, step: int, problem: str) -> None:
        self.warn(f"the checkpoint of step {step} was not kept, the ones before it stand: {problem}")

    def _pass_on_notices(self) -> None:
        for notice in self._saving.take_notices():
            self.warn(notice)

    def _write_windows(self, windows: list[LogWindow], agreement: Agreement) -> None:
        if self._events is None:
            return
        for number, window in enumerate(windows):
            loss_sum, weight_sum = agreement.sums[2 * number : 2 * number + 2]
            self._write(
                "train",
                window.step,
                time=window.time,
                loss=loss_sum / weight_sum if weight_sum else None,
                lr=window.learning_rate,
                step_seconds=window.seconds / window.num_steps,
                data_seconds=window.data_seconds / window.num_steps,
                samples_per_second=window.num_samples / window.seconds,
            )

    def _warn(self, settled: Settled) -> None:
        skipped = self._precision.skipped_updates()
        if skipped:
            self.warn(
                f"the gradient scaler skipped {skipped} update(s): gradients overflowed fp16; its scale was lowered"
            )
        if settled.weightless_steps:
            self.warn(f"{settled.weightless_steps} step(s) had a global weight of 0: their gradients are zero")

    def warn(self, message: str) -> None:
        """Writes a warning event, on rank 0."""
        self._write("warning", self.completed_steps, message=message)

    def _evaluate(self) -> None:
        assert self._evaluator is not None
        started = time.perf_counter()
        broadcast_buffers(self.task.model)
        results = self._evaluator.evaluate()
        self._rates.after_evaluation(results)
        if self._saving.best is not None:
            self._saving.best.consider(results, self.task.model)
        self._write("eval", self.completed_steps, **results, eval_seconds=time.perf_counter() - started)

    def _write(self, event: str, step: int, **fields: Any) -> None:
        if self._events is not None:
            epoch = self._schedule.position(max(step - 1, 0))[0]
            self._events.write(event, step=step, epoch=epoch, samples=self._schedule.samples_after(step), **fields)

    def _refuse_non_finite(self, rank: int, step: int) -> None:
        """Ends the run on every rank; the rank whose loss it was names the samples."""
        if rank != self._place.rank:
            raise PeerFailedError(f"the loss is not finite on rank {rank}")
        epoch, step_of_epoch = self._schedule.position(step - 1)
        ids = self._sampler.rank_slice(epoch, step_of_epoch).tolist()
        shown = ", ".join(map(str, ids[:32])) + (f" and {len(ids) - 32} more" if len(ids) > 32 else "")
        raise NonFiniteLossError(
            f"the loss is not finite at step {step} (epoch {epoch}) on rank {rank}, whose samples were {shown}; "
            "look at these samples, lower the learning rate or set train.clip_norm"
        )
