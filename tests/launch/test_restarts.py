"""A rank that is lost under Ray: the run resumes from the newest checkpoint automatically, with the same bits."""

import socket

import pytest

from distrib.runs.run import Run

pytestmark = [pytest.mark.timeout(240), pytest.mark.ray, pytest.mark.long]


def test_a_killed_rank_under_ray(workplace):
    reference = workplace.start("--run-id", "reference")
    assert reference.wait(60) == 0, reference.stderr
    model = f"{{target: launch_jobs:Faulty, args: {{fault: kill, notes: {workplace.notes}, rank: 1, step: 7}}}}"
    launch = workplace.start("--run-id", "killed", "--on", "ray", "--set", f"model={model}")
    assert launch.wait(100) == 0, launch.stdout + launch.stderr
    assert len(workplace.noted("kill")) == 1
    assert sorted(rank for rank, _ in workplace.noted("built")) == [0, 0, 1, 1]
    killed, undisturbed = (Run(workplace.runs / name) for name in ("killed", "reference"))
    starts = [event for event in killed.events() if event["event"] == "start"]
    (restart,) = [event for event in killed.events() if event["event"] == "restart"]
    assert [start["attempt"] for start in starts] == [0, 1]
    assert restart["step"] == starts[1]["step"] in (3, 6)
    assert f"rank 1 on {socket.gethostname()} failed: RankLost: the rank's process was lost" in restart["message"]
    assert killed.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert (killed.status, killed.error) == ("finished", None)
    assert launch.stderr == ""
    assert "raylet" not in launch.stdout
    assert "Traceback" not in launch.stdout
    launch.wait_until_gone()
    workplace.assert_clean()
