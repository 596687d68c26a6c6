"""The position that a rank publishes."""

import pytest

from distrib.train.context import RankInfo
from distrib.train.failure import Failure
from distrib.train.phases import Phase, RankProgress


def test_a_phase_within_another_one_ends_unless_the_rank_fails_in_it():
    progress = RankProgress.private()
    progress.complete_step(7)
    progress.enter(Phase.OPTIMIZER)
    with progress.during(Phase.EVALUATION):
        assert progress.position.phase is Phase.EVALUATION
    assert progress.position.phase is Phase.OPTIMIZER
    error = ValueError("no such label")
    with pytest.raises(ValueError, match="no such label"), progress.during(Phase.EVALUATION):
        raise error
    failure = Failure.of(error, RankInfo(1, 2, 1, "host2"), progress.position)
    assert (failure.completed_steps, failure.phase) == (7, "evaluation")
    progress.enter(Phase.DATA)
    assert failure.at(progress.position) is failure
