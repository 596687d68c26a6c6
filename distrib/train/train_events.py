"""The train events: what is logged of the steps, and what the times of the ranks show."""

from __future__ import annotations

from distrib.train.control import Agreement
from distrib.train.health.stragglers import StragglerWatch
from distrib.train.health.times import NUM_VALUES, MeanTimes
from distrib.train.objective.loss_accumulator import LogWindow
from distrib.train.rank import Rank
from distrib.train.records import Records
from distrib.train.steps import Steps

_MAX_LISTED_RANKS = 64
"""Beyond that, events do not list the times of each rank."""
_NUM_LOSS_VALUES = 3
_NUM_SHARED = _NUM_LOSS_VALUES + NUM_VALUES


class TrainEvents:
    """Writes a train event for each log interval, from what the ranks share of it at their next exchange.

    Args:
        rank: This rank.
        steps: The sizes of batches.
        records: Writes events.
    """

    def __init__(self, rank: Rank, steps: Steps, records: Records) -> None:
        self._rank = rank
        self._steps = steps
        self._records = records
        self._stragglers: StragglerWatch | None = None
        self._num_windows = 0

    def start(self, hosts: list[str]) -> None:
        """Begins to compare the ranks, which run on these hosts; called on rank 0, or with no hosts."""
        if hosts:
            self._stragglers = StragglerWatch(hosts, self._rank.settings.loader_workers)

    def values(self, windows: list[LogWindow]) -> list[float]:
        """What this rank shares of log intervals that have ended."""
        times = self._rank.times.flush()
        return [value for window in windows for value in _shared_values(window, times.get(window.step, MeanTimes()))]

    def write(
        self, windows: list[LogWindow], agreement: Agreement, logs: dict[int, dict[str, float | None]]
    ) -> None:  # fmt: skip
        """Writes the events of these log intervals.

        Args:
            windows: As they were given to `values`.
            agreement: What the ranks have exchanged.
            logs: What the job's code has logged, by step.
        """
        for number, window in enumerate(windows):
            own = slice(_NUM_SHARED * number, _NUM_SHARED * (number + 1))
            loss_sum, weight_sum, *_ = agreement.sums[own]
            step_seconds = [row[own][2] for row in agreement.values]
            ranks = [MeanTimes(*row[own][_NUM_LOSS_VALUES:]) for row in agreement.values]
            shown = ranks if len(ranks) <= _MAX_LISTED_RANKS else []
            self._records.event(
                "train",
                window.step,
                time=window.time,
                loss=loss_sum / weight_sum if weight_sum else None,
                lr=window.learning_rate,
                step_seconds=window.seconds / window.num_steps,
                data_seconds=window.data_seconds / window.num_steps,
                samples_per_second=window.num_samples / window.seconds,
                rank_step_seconds=step_seconds[: len(shown)],
                rank_data_seconds=[times.data for times in shown],
                rank_compute_seconds=[times.compute for times in shown],
                rank_wait_seconds=[times.wait for times in shown],
                **logs.get(window.step, {}),
            )
            self._compare(window, ranks)

    def _compare(self, window: LogWindow, ranks: list[MeanTimes]) -> None:
        """Warns about slow ranks; the first step of an attempt, a log interval of its own, is not like the others."""
        self._num_windows += 1
        if self._stragglers is None or self._num_windows == 1:
            return
        for warning in self._stragglers.observe(ranks, window.batch_sizes, window.seconds / window.num_steps):
            self._records.event("warning", window.step, message=warning.message, **warning.fields)


def _shared_values(window: LogWindow, times: MeanTimes) -> tuple[float, ...]:
    """_NUM_SHARED values: sums of the loss, the mean time of a step, and its parts."""
    return window.loss_sum, window.weight_sum, window.seconds / window.num_steps, *times.as_values()
