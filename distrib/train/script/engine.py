"""The engine of a script's session: what a job's worker builds from a spec, built for the script's own loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.errors import Stopped
from distrib.job.step_plan import StepPlan
from distrib.train.boundary import StepBoundary
from distrib.train.callbacks import Callbacks
from distrib.train.checkpoint.checkpointer import Checkpointer
from distrib.train.checkpoint.final_weights import save_final_weights
from distrib.train.checkpoint.find import find_checkpoint
from distrib.train.checkpoint.saving import Saving
from distrib.train.control import Control, ExchangeInterval
from distrib.train.data.loader import StepBatch, StepLoader
from distrib.train.health.alike import check_loops
from distrib.train.health.spot_check import check_samples_of_loop
from distrib.train.health.spot_sample import SpotSample
from distrib.train.loop import Loop
from distrib.train.objective.loss_accumulator import CAPACITY, LossAccumulator
from distrib.train.optimization.precision import Precision
from distrib.train.process.process_groups import long_timeout
from distrib.train.process.randomness import derive_seed, reseed
from distrib.train.rank import Rank
from distrib.train.records import Records
from distrib.train.script.errors import UsageError
from distrib.train.script.steps import ScriptSteps
from distrib.train.session.logs import LogAccumulator
from distrib.train.session.minimize import Slice
from distrib.train.session.session import Session, SessionControl
from distrib.train.state import TrainingState
from distrib.train.strategy.base import StrategySettings
from distrib.train.strategy.registry import make_strategy

_NUM_COMPARED = 16
_OWN_DATA = (
    "A restarted script runs from its beginning: if it makes its data itself, as from games that the model plays, keep "
    "it with session.keep"
)


@dataclass(frozen=True)
class ScriptTraining:
    """What a script trains, as the boundary sees it; see `Trained`."""

    state: TrainingState
    precision: Precision
    losses: LossAccumulator
    session: SessionControl

    @property
    def learning_rates(self) -> float | dict[str, float]:
        """The learning rate of the first parameter group, or those of several optimizers by name."""
        rates = {
            name.rpartition(".")[2]: float(optimizer.param_groups[0]["lr"])
            for name, optimizer in self.state.optimizers.items()
        }
        return next(iter(rates.values())) if len(rates) == 1 else rates

    def after_step(self, completed_steps: int) -> None:
        """Does nothing: a script advances its schedules itself."""

    def after_evaluation(self, results: dict[str, Any]) -> None:
        """Does nothing: a script evaluates itself."""

    def take_warnings(self) -> list[str]:
        """Nothing."""
        return []


class ScriptEngine:
    """The parts of a rank that runs a script with a session.

    Args:
        rank: This rank.
        is_kept: Whether there is a run to keep checkpoints and events in.

    Attributes:
        rank: This rank.
        state: What a checkpoint holds.
        is_resumed: Whether the run continues from a checkpoint.
        precision: The precision of forward passes.
        steps: The loops of the script.
    """

    def __init__(self, rank: Rank, *, is_kept: bool) -> None:
        self.rank = rank
        self._is_kept = is_kept
        stored, self._warnings = find_checkpoint(rank)
        info = rank.info
        strategy = make_strategy(StrategySettings(rank.settings, info.rank, info.world_size, rank.device))
        self.state = TrainingState(strategy, info.rank, info.world_size, stored)
        self.is_resumed = stored is not None
        self.precision, self.losses = Precision(rank.settings.precision, rank.device), LossAccumulator(rank.device)
        self.losses.use_weights()
        self.steps = ScriptSteps(self.state.completed_steps)
        self.state.register("scaler", self.precision)
        self.state.register("losses", self.losses, per_rank=True)
        self.state.register("loops", self.steps)
        self.state.register("samples", self.steps.counter)
        self._boundary: StepBoundary | None = None
        self._records = Records(rank, self.steps, self.steps.counter, is_kept=is_kept)

    @property
    def has_begun(self) -> bool:
        """Whether a loop has begun, before which everything is set up."""
        return self._boundary is not None

    def begin(self, session: Session, *, is_ever_saved: bool) -> None:
        """Builds what acts at the end of each step, when the first loop begins."""
        if self._boundary is not None:
            return
        rank, request = self.rank, self.rank.config.request
        checkpointer = None
        if is_ever_saved and self._is_kept:
            group = dist.new_group(backend="gloo", timeout=long_timeout(request))
            checkpointer = Checkpointer(rank, self.state, group, self._records)
        self._boundary = StepBoundary(
            rank,
            ScriptTraining(self.state, self.precision, self.losses, SessionControl(session, Callbacks([]))),
            self.steps,
            control=Control(rank.control_group, rank.context, ExchangeInterval(CAPACITY, request.grace_seconds)),
            saving=Saving(checkpointer, None, self.steps, self._records, rank.control_group, rank.progress),
            evaluator=None,
            records=self._records,
        )
        self.state.end_restoring()
        if checkpointer is not None:
            self.state.check_savable()
        rank.storage.start()

    def next_seed(self) -> int:
        """The seed of the next loop: of its order, and of the samples and steps in it.

        Those of later loops have 31 bits, since orders of the script's own calculate with them.
        """
        seed, number = self.rank.settings.seed, self.steps.number + 1
        return seed if number == 0 else derive_seed("loop", seed, number) >> 32

    def begin_loop(self, plan: StepPlan, order: str, sample: SpotSample) -> bool:
        """Begins the next loop; returns whether it has steps left.

        Args:
            plan: Its steps, counted from 0.
            order: The order of its samples.
            sample: One of them.

        Raises:
            RanksDifferError: The ranks have different loops.
            UsageError: It does not fit the checkpoint that the run continues from.
        """
        assert self._boundary is not None
        completed_steps, digest = self.state.completed_steps, None
        findings: list[str] = []
        if not self.steps.has_next_ended(completed_steps):
            check_loops(plan, self.rank.control_group)
            if self._is_compared(self.steps.number + 1):
                digest, findings = check_samples_of_loop(self.rank, sample)
        difference = self.steps.begin(plan, order, digest, completed_steps)
        if difference is not None:
            raise UsageError(
                f"session.batches: does not fit the checkpoint that the run continues from: {difference}; use the same "
                f"arguments, or start another run with --fresh. {_OWN_DATA}"
            )
        if self.rank.is_first and self.steps.is_other_data(digest):  # the checkpoint has the digest of rank 0
            findings.append(
                f"session.batches: sample {sample.index} is another than before the run was restarted, so the loop "
                f"does not continue as it began. {_OWN_DATA}"
            )
        if self._boundary.has_started:
            for message in findings:
                self._records.warn(completed_steps, message)
        else:
            self._warnings += findings
        return not self._boundary.is_finished

    def _is_compared(self, number: int) -> bool:
        """Whether the data of this loop, from 0, is compared, which takes a process; of later loops only some are."""
        assert self._boundary is not None
        is_first_after_restart = self.is_resumed and not self._boundary.has_started
        return is_first_after_restart or number < _NUM_COMPARED or number & (number - 1) == 0

    def end_loop(self, completed_steps: int) -> None:
        """Gives all ranks the same random numbers until the next loop, also where a restarted run skips this one.

        Args:
            completed_steps: Those of the run when the loop has ended.
        """
        reseed(derive_seed("between loops", self.rank.settings.seed, completed_steps))

    def add_losses(self, losses: list[tuple[torch.Tensor, Any]], part: Slice) -> None:
        """Adds a step's losses to those of the next event: their sum, or with weights their mean."""
        if losses and all(weight is None for _, weight in losses):
            losses = [(torch.stack([loss.double() for loss, _ in losses]).sum(), None)]
        for loss, weight in losses:
            value = part.num_samples if weight is None or not part.num_samples else weight
            self.losses.add(loss, torch.as_tensor(value, dtype=torch.float64, device=self.rank.device))

    def loop(self, loader: StepLoader) -> Loop:
        """The loop over the batches of `loader`."""
        assert self._boundary is not None
        first_step = self.steps.first_step
        return Loop(self.rank, _ShiftedLoader(loader, first_step), self._boundary, self._records, self._warnings)

    def check_stopped(self) -> None:
        """Ends a run that was requested to stop, and whose checkpoint is committed.

        Raises:
            Stopped: It was.
        """
        if self._boundary is None or not self._boundary.has_ended or self._boundary.is_finished:
            return
        self._records.end()
        raise Stopped(f"stopped after step {self.state.completed_steps}")

    def finish(self, model: nn.Module | None, logs: LogAccumulator) -> None:
        """Writes the final weights and the last records.

        Args:
            model: Whose weights to write.
            logs: What the script has logged; what it has logged after its last step becomes an evaluation.
        """
        if not self._is_kept:
            return
        step = self.state.completed_steps
        logs.end_window(step)
        values = logs.flush(self.rank.control_group)[step]
        if values:
            self._records.event("eval", step, **values)
        if model is not None:
            save_final_weights(self.rank, self.state, model)
        self._records.end()


@dataclass(frozen=True)
class _ShiftedLoader:
    """The batches of a loop, with their steps counted over the whole run."""

    loader: StepLoader
    first_step: int

    def next(self) -> StepBatch:
        """See `StepLoader`."""
        batch = self.loader.next()
        return StepBatch(batch.global_step + self.first_step, batch.epoch, batch.micro_batches, batch.batches)

    def prefetch(self) -> None:
        """See `StepLoader`."""
        self.loader.prefetch()
