"""What each micro-batch weighs in the mean over the global batch, and whether its loss is such a mean."""

from __future__ import annotations

from typing import Any

import torch

from distrib.errors import DistribError
from distrib.job.step_plan import StepPlan
from distrib.train.data.sampler import MicroBatch
from distrib.train.objective.loss_graph import LossGraph
from distrib.train.objective.loss_probe import is_mean_over_samples
from distrib.train.objective.loss_weights import LossForm
from distrib.train.objective.task import StepOutput, Task
from distrib.train.phases import Phase
from distrib.train.process.process_groups import gather_rows
from distrib.train.process.shared_steps import EveryStep, SharedSteps, share_steps
from distrib.train.rank import Rank

_NUM_FIRST = 16


class WeightError(DistribError):
    """A batch's weight is missing, is not a weight, or cannot be known."""


class Weighting:
    """Gives each micro-batch its weight: what its loss is a mean over.

    That is the number of samples, unless the job's step or collate gives a weight, or the loss is known to divide by
    something else. Summing weights over the ranks costs time, so where cross entropy has met no ignored target in the
    first step, a rank that meets one later announces it, and weights are summed in that step alone.

    Args:
        task: The loss.
        step_plan: The sizes of batches.
        rank: This rank.

    Attributes:
        counts_targets: Whether the loss's own weight is computed for each batch.
        warnings: What has been found out, for the run's events.
    """

    def __init__(self, task: Task, step_plan: StepPlan, rank: Rank) -> None:
        self._task = task
        self._device = rank.device
        self._group = rank.control_group
        self._progress = rank.progress
        self._is_split = step_plan.world_size > 1 or step_plan.accumulate > 1
        self.counts_targets = task.form.count is not None
        self._uneven: SharedSteps | EveryStep | None = None
        is_cheap = rank.device.type == "cuda" or step_plan.world_size == 1 or step_plan.accumulate > 1
        self._may_announce = self.counts_targets and not (is_cheap or task.form.is_explicit)
        if self._may_announce:
            self._uneven = share_steps(rank.control_group)
            self.counts_targets = self._uneven is None
        self.warnings: list[str] = []
        is_mean = not task.form.is_known or task.form == LossForm(is_known=True)
        self._graph = LossGraph() if self._is_split and is_mean else None
        self._num_looked_at = 0
        self._is_weighted: bool | None = None
        self._rows_per_sample = 0.0

    def state_dict(self) -> dict[str, Any]:
        """How targets are counted, so that a resumed run rounds as the uninterrupted one."""
        return {"counts_targets": self.counts_targets, "rows_per_sample": self._rows_per_sample}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned.

        If the ranks shared memory when it was saved and do not any more, as on several hosts, weights remain relative
        to numbers of samples, but are summed in every step.
        """
        self.counts_targets |= state["counts_targets"]
        rows_per_sample = state.get("rows_per_sample", 0.0)
        if self._may_announce and self._uneven is None and rows_per_sample and not state["counts_targets"]:
            self._uneven, self.counts_targets = EveryStep(), False
        if self._uneven is not None:
            self._rows_per_sample = rows_per_sample

    @property
    def is_weighted(self) -> bool:
        """Whether weights are not numbers of samples; known from the first micro-batch on."""
        return bool(self._is_weighted)

    def is_uneven(self, step: int) -> bool:
        """Whether numbers of samples do not weigh in this step, from 1, alone; ask after its backward pass."""
        return self._uneven is not None and not self._is_weighted and self._uneven.is_announced(step)

    def weight(self, output: StepOutput, part: MicroBatch, step: int) -> torch.Tensor | float:
        """The weight of a micro-batch: its number of samples, or a float64 scalar on the device.

        Args:
            output: What the micro-batch gave.
            part: Its samples.
            step: The global step, from 1.

        Raises:
            WeightError: It has none, or not what it should have.
        """
        if self._is_weighted is None:
            self._learn(output, part)
        if not self._is_weighted:
            if output.count is not None:
                return self._counted(output, part, step)
            self._check_rows(output, part)
            self._look_at_graph(output, part)
            return part.num_samples
        value = output.weight
        if value is None and self.counts_targets and output.count is not None:
            value = output.count()
        if value is None:
            raise WeightError("step: gave no weight this time, but did at first; give a weight always or never")
        weight = torch.as_tensor(value, dtype=torch.float64, device=self._device)
        if weight.device.type == "cpu" and not 0 <= float(weight) < float("inf"):
            raise WeightError(f"step: gave the weight {float(weight)}; a weight is a count, finite and not below 0")
        return weight if part.num_samples else torch.zeros_like(weight)

    def _counted(self, output: StepOutput, part: MicroBatch, step: int) -> float:
        """The weight of a loss that counts targets: that of the samples unless other targets count than usual."""
        is_usual = not output.has_ignored and _rows_per_sample(output, part) == self._rows_per_sample
        if is_usual or not part.num_samples:
            return part.num_samples
        assert self._uneven is not None
        assert output.count is not None
        self._uneven.announce(step)
        return float(output.count()) / self._rows_per_sample

    def _learn(self, output: StepOutput, part: MicroBatch) -> None:
        """In the first step of an attempt, agrees with the other ranks on what weighs."""
        has_ignored = bool(part.num_samples) and output.has_ignored
        is_mean = self._is_mean(output, part)
        mine = [float(output.weight is not None), float(has_ignored), _rows_per_sample(output, part), float(is_mean)]
        with self._progress.during(Phase.REDUCE):
            rows = gather_rows(mine, self._group)
        ratios = {row[2] for row in rows if row[2]}
        if not all(row[3] for row in rows):
            self.warnings.append(self._not_a_mean())
            self._graph = None
        self._is_weighted = any(row[0] for row in rows)
        if self._is_weighted and output.weight is None:
            raise WeightError("step: gave no weight on this rank, but did on another; give a weight always or never")
        if self._rows_per_sample and not self.counts_targets:
            return  # as before the resume
        if not self._is_weighted and output.count is not None:
            self.counts_targets |= len(ratios) > 1 or any(row[1] for row in rows)
            self._is_weighted = self.counts_targets
        self._rows_per_sample = max(ratios, default=0.0)

    def _is_mean(self, output: StepOutput, part: MicroBatch) -> bool:
        """Whether an unknown loss is a mean over samples, as far as can be seen."""
        if not self._is_split or part.num_samples < 2 or output.weight is not None or self._task.loss is None:
            return True
        return self._task.form.is_known or is_mean_over_samples(self._task.loss, output.outputs, output.targets)

    @property
    def _way(self) -> str:
        """How to return a weight: from the job's step if it has one."""
        return "return from step" if self._task.loss is None else "use step: and return"

    def _not_a_mean(self) -> str:
        return (
            f"loss: {self._task.loss_name} is not a mean over the samples of a batch (on halves of the first batch it "
            "is another), so results depend on the number of workers and on accumulate; make it a mean, or use step: "
            "and return weight: what the loss is a mean over"
        )

    def _look_at_graph(self, output: StepOutput, part: MicroBatch) -> None:
        """Warns once if a loss of the job's own is no mean over samples; looks more and more rarely."""
        number = self._num_looked_at = self._num_looked_at + 1
        if self._graph is None or not part.num_samples or (number > _NUM_FIRST and number & (number - 1)):
            return
        found = self._graph.find(output.loss, part.num_samples)
        if found is not None:
            self._graph = None
            field = "step" if self._task.loss is None else "loss"
            self.warnings.append(
                f"{field}: {self._task.loss_name} {found}, so results depend on the number of workers and on "
                f'accumulate; make it a mean over the samples, or {self._way} {{"loss": …, "weight": …}}, the weight '
                "being what the loss is a mean over"
            )

    def _check_rows(self, output: StepOutput, part: MicroBatch) -> None:
        """Refuses a batch that holds another number of samples than planned, which numbers of samples do not weigh."""
        found = _rows_per_sample(output, part)
        self._rows_per_sample = self._rows_per_sample or found
        if found and (found != self._rows_per_sample or found != int(found)):
            raise WeightError(
                f"data.collate: the batch has {output.num_rows} rows for {part.num_samples} samples, "
                f"{self._rows_per_sample:g} a sample at first; give data.collate a method weight(batch), or "
                f"{self._way} weight: what the loss is a mean over"
            )


def _rows_per_sample(output: StepOutput, part: MicroBatch) -> float:
    """Rows of a batch for each planned sample; 0 if it is unknown or does not matter."""
    if not part.num_samples or output.num_rows is None or output.weight is not None:
        return 0.0
    return output.num_rows / part.num_samples
