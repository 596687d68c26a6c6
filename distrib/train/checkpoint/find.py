"""Finds the checkpoint from which a rank continues, and describes the damage in newer ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distrib.train.process.process_groups import gather_rows
from distrib.train.rank import Rank

if TYPE_CHECKING:
    from distrib.train.checkpoint.restore import StoredState


def find_checkpoint(rank: Rank) -> tuple[StoredState | None, list[str]]:
    """The newest good checkpoint, if there is one, and warnings about newer ones that are damaged."""
    exists = rank.is_first and bool(rank.storage.checkpoints.list())
    if not gather_rows([float(exists)], rank.control_group)[0][0]:
        return None, []
    from distrib.train.checkpoint.restore import Restorer  # takes more than a second

    restorer = Restorer(rank.storage.checkpoints, rank.control_group)
    found = restorer.find()
    return found, _warnings(restorer.problems, 0 if found is None else found.completed_steps)


def _warnings(problems: list[str], first_step: int) -> list[str]:
    warnings = [f"a damaged checkpoint was skipped and renamed damaged-…: {problem}" for problem in problems]
    if problems:
        where = (
            f"continues from step {first_step}" if first_step else "starts from the beginning: no checkpoint is left"
        )
        warnings.append(f"training {where}")
    return warnings
