"""`distrib plan --try`: the plan is shown whatever the trial finds."""

import pytest

pytestmark = pytest.mark.timeout(60)

STEP = """
from torch import nn

def step(model, batch, session):
    inputs, targets = batch
    return session.minimize(nn.functional.mse_loss(model(inputs), targets))
"""
JOB = """\
name: driven
model: {target: torch.nn:Linear, args: {in_features: 2, out_features: 2}}
data: {train: {target: tests.support.exact_jobs:Points, args: {num_samples: 8}}, batch_size: 4}
step: driven_step:step
optimizer: {target: torch.optim:SGD, args: {lr: 0.1}}
train: {LENGTH}
resources: {device: cpu}
"""


@pytest.mark.parametrize(
    ("length", "sets"),
    [("epochs: 2", "--set train.epochs=null --set train.steps=1"), ("steps: 2", "--set train.steps=1")],
)
def test_a_step_with_a_session_is_tried_by_a_run(forked_distrib, tmp_path, length, sets):
    (tmp_path / "driven_step.py").write_text(STEP)
    (tmp_path / "job.yaml").write_text(JOB.replace("LENGTH", length))
    result = forked_distrib("plan", "job.yaml", "--try")
    assert result.returncode == 2
    assert "model.safetensors  final weights" in result.stdout
    assert f"job.yaml:4: step: a step with a session can only be tried by a run: distrib run job.yaml {sets}\n" in (
        result.stderr
    )
