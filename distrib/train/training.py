"""What a rank trains: built once, from the job and the checkpoint that it continues from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distrib.job.step_plan import StepPlan
from distrib.train.callbacks import build_callbacks
from distrib.train.checkpoint.parts import LOSS
from distrib.train.checkpoint.warm_start import load_first_weights
from distrib.train.checks.model_state import check_state
from distrib.train.health.alike import check_models
from distrib.train.objective.loss_accumulator import LossAccumulator
from distrib.train.objective.task import Task
from distrib.train.objective.weighting import Weighting
from distrib.train.optimization.lr_schedule import Schedules
from distrib.train.optimization.optimizer import build_optimizers
from distrib.train.optimization.precision import Precision
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.resolved_job import ResolvedJob
from distrib.train.session.session import Session, SessionControl, SessionRules
from distrib.train.state import TrainingState
from distrib.train.strategy.base import StrategySettings
from distrib.train.strategy.registry import make_strategy

if TYPE_CHECKING:
    from distrib.train.checkpoint.restore import StoredState


@dataclass(frozen=True)
class Training:
    """The parts of a training.

    Attributes:
        task: How a batch becomes a loss, and the metrics.
        state: Models, optimizers and all else that a checkpoint holds.
        schedules: The learning-rate schedules.
        precision: The precision of the forward pass, and the gradient scaler.
        losses: Adds up the losses of the steps.
        weighting: What each micro-batch weighs.
        session: What the job's own code sees of the training, if it sees anything.
    """

    task: Task
    state: TrainingState
    schedules: Schedules
    precision: Precision
    losses: LossAccumulator
    weighting: Weighting
    session: SessionControl | None

    @property
    def learning_rates(self) -> float | dict[str, float]:
        """The learning rate, or those of all optimizers by name if the job names them."""
        return self.schedules.learning_rates

    def after_step(self, completed_steps: int) -> None:
        """Advances the schedules by steps and, at the end of an epoch, those by epochs."""
        self.schedules.after_step(completed_steps)

    def after_evaluation(self, results: dict[str, Any]) -> None:
        """Advances the schedules by evaluations."""
        self.schedules.after_evaluation(results)

    def take_warnings(self) -> list[str]:
        """What has been found out about the weights of losses since the last call."""
        warnings = list(self.weighting.warnings)
        self.weighting.warnings.clear()
        return warnings


def build_training(rank: Rank, resolved: ResolvedJob, step_plan: StepPlan, stored: StoredState | None) -> Training:
    """Builds everything, wraps the model, and restores what `stored` has."""
    spec, info = resolved.job.spec, rank.info
    task = Task(resolved, rank.device)
    if stored is None:
        check_state(task.model, task.loss_module)
        load_first_weights(resolved.job, rank.config.working_directory, task.model)
    modules = [task.model, *([] if task.loss_module is None else [task.loss_module])]
    check_models(modules, RankTree(rank.control_group))
    strategy = make_strategy(StrategySettings(rank.settings, info.rank, info.world_size, rank.device))
    state = TrainingState(strategy, info.rank, info.world_size, stored)
    state.add_model(task.model, is_wrapped=not task.drives)
    _add_loss(state, task)
    with state.first_trainable():
        optimizers = build_optimizers(resolved, step_plan, task.model, task.loss_module)
    schedules = Schedules(resolved, step_plan, optimizers)
    for name, optimizer in optimizers.items():
        state.add_optimizer(optimizer, name if spec.optimizers is None else f"optimizer.{name}")
    precision, losses = Precision(spec.train.precision, rank.device), LossAccumulator(rank.device)
    weighting = Weighting(task, step_plan, rank)
    state.register("schedule", schedules)
    state.register("scaler", precision)
    state.register("losses", losses, per_rank=True)
    state.register("weighting", weighting)
    session = None
    callbacks = build_callbacks(resolved)
    if spec.step is not None or spec.callbacks:
        session = SessionControl(Session(rank, state, precision, _session_rules(rank, task)), callbacks)
        callbacks.register(state)
    if session is not None and task.takes_session:
        task.bind(session.session)
    return Training(task, state, schedules, precision, losses, weighting, session)


def _session_rules(rank: Rank, task: Task) -> SessionRules:
    return SessionRules(
        can_minimize=task.drives,
        may_stop=task.may_stop,
        accumulate=rank.settings.accumulate,
        metrics=frozenset(task.metrics),
    )


def _add_loss(state: TrainingState, task: Task) -> None:
    """Trains a loss's own parameters, and saves its parameters, buffers or other state."""
    loss = task.loss_module
    if loss is not None and any(parameter.requires_grad for parameter in loss.parameters()):
        state.add_model(loss, LOSS)
    elif loss is not None or (hasattr(task.loss, "state_dict") and hasattr(task.loss, "load_state_dict")):
        state.register(LOSS, task.loss)
