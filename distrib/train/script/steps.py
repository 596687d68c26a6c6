"""The loops of a script as the steps of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from distrib.job.step_plan import StepPlan
from distrib.train.data.sample_record import SampleCounter


@dataclass(frozen=True)
class LoopSpan:
    """Where a loop of `batches` lies in the run.

    Attributes:
        num_samples: The length of its dataset.
        batch_size: Samples of a global batch.
        order: The order of its samples.
        end_step: Completed steps of the run when it ends.
        digest: Of one of its samples, if it is known.
    """

    num_samples: int
    batch_size: int
    order: str
    end_step: int
    digest: str | None = None

    def difference(self, other: LoopSpan, *, has_ended: bool) -> str | None:
        """What makes the other loop one that cannot continue this one; of a loop that has ended, the data is free."""
        names = (("num_samples", "the number of samples"), ("batch_size", "batch_size"), ("order", "order"))
        for name, text in names[2:] if has_ended else names:  # small data makes small batches
            before, now = getattr(self, name), getattr(other, name)
            if before != now:
                return f"{text} was {before} and is {now}"
        return None


class ScriptSteps:
    """The steps of a script: those of its loops, one after the other; see `Steps`. Part of checkpoints.

    A restarted script runs from its beginning. Loops that had ended are then recognized by their number and skipped.

    Args:
        completed_steps: Those of the run so far.

    Attributes:
        counter: Counts the samples of steps.
    """

    is_ever_evaluated = False

    def __init__(self, completed_steps: int = 0) -> None:
        self.counter = SampleCounter(completed_steps)
        self._spans: list[LoopSpan] = []
        self._num_begun = 0
        self._plan: StepPlan | None = None
        self._first_step = 0

    def has_next_ended(self, completed_steps: int) -> bool:
        """Whether the loop that begins next had ended before the run was restarted."""
        number = self._num_begun
        return number < len(self._spans) and completed_steps >= self._spans[number].end_step

    def is_other_data(self, digest: str | None) -> bool:
        """Whether the present loop, which began before the run was restarted, had another sample with this index."""
        before = self._spans[self.number].digest
        return None not in (before, digest) and before != digest

    def begin(self, plan: StepPlan, order: str, digest: str | None, completed_steps: int) -> str | None:
        """Begins the next loop.

        Args:
            plan: Its steps, counted from 0.
            order: The order of its samples.
            digest: Of one of its samples, if it is known.
            completed_steps: Those of the run.

        Returns:
            Why it does not fit the checkpoint that the run continues from; None if it does.
        """
        number, has_ended = self._num_begun, self.has_next_ended(completed_steps)
        self._num_begun += 1
        before = self._spans[number - 1] if number else None
        self._plan = plan
        self._first_step = before.end_step if before else 0
        end_step = self._first_step + plan.total_steps
        span = LoopSpan(plan.train_samples, plan.global_batch_size, order, end_step, digest)
        if number == len(self._spans):
            self._spans.append(span)
            return None
        difference = self._spans[number].difference(span, has_ended=has_ended)
        if difference is None and not has_ended:
            self._spans[number:] = [replace(span, digest=self._spans[number].digest or digest)]  # it may be longer now
        return difference

    @property
    def number(self) -> int:
        """The number of the present loop, from 0."""
        return self._num_begun - 1

    @property
    def first_step(self) -> int:
        """Completed steps of the run when the present loop began."""
        return self._first_step

    def break_off(self, completed_steps: int) -> None:
        """Ends the present loop with this step."""
        self._spans[self.number :] = [replace(self._spans[self.number], end_step=completed_steps)]

    @property
    def total_steps(self) -> int:
        """Completed steps of the run when the present loop ends."""
        return self._spans[self.number].end_step if self._plan is not None else 0

    @property
    def save_interval_seconds(self) -> int:
        """Seconds between checkpoints; 0 if they are not saved by time."""
        return 0 if self._plan is None else self._plan.save_interval_seconds

    @property
    def global_batch_size(self) -> int:
        """Samples of a step of the present loop over all ranks, those of the last step of an epoch apart."""
        return self._present.global_batch_size

    def position(self, completed_steps: int) -> tuple[int, int]:
        """The epoch of the present loop, and the step in it."""
        return (0, 0) if self._plan is None else self._plan.position(max(0, completed_steps - self._first_step))

    def samples_after(self, completed_steps: int) -> int:
        """Samples of the whole run."""
        return self.counter.samples_after(completed_steps)

    def is_logged(self, completed_steps: int) -> bool:
        """Whether a train event is due: as in a plan, for each loop."""
        return completed_steps == self.total_steps or self._present.is_logged(completed_steps - self._first_step)

    def is_evaluated(self, completed_steps: int) -> bool:
        """Never: a script evaluates itself."""
        return False

    def is_saved(self, completed_steps: int) -> bool:
        """Whether a checkpoint is due: as in a plan, for each loop."""
        if completed_steps == self.total_steps:
            return self._present.is_ever_saved
        return self._present.is_saved(completed_steps - self._first_step)

    def is_due(self, count: int, unit: str, completed_steps: int) -> bool:
        """Whether something that happens every `count` steps or epochs of the loop, and at its end, is due."""
        if completed_steps == self.total_steps:
            return True
        done = completed_steps - self._first_step
        if unit == "step":
            return done % count == 0
        epoch, step = self._present.position(done)
        return step == 0 and epoch % count == 0

    def state_dict(self) -> dict[str, Any]:
        """Where each loop that has begun ends."""
        return {"loops": [asdict(span) for span in self._spans[: self._num_begun]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._spans = [LoopSpan(**span) for span in state["loops"]]

    @property
    def _present(self) -> StepPlan:
        assert self._plan is not None
        return self._plan
