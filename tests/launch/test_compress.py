"""Compressed gradients: close to the whole ones where they work, refused before the start where they do not."""

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(120)


def test_fp16_gradients_train_nearly_the_same(workplace):
    weights = {}
    for compress in ("none", "fp16"):
        settings = (f"ddp.compress={compress}", "optimizer={target: torch.optim:SGD, args: {lr: 0.1}}")
        launch = workplace.start(*(f"--set={setting}" for setting in settings), "--run-id", compress)
        assert launch.wait(60) == 0, launch.stderr
        weights[compress] = load_file(workplace.runs / compress / "model.safetensors")
    gaps = [(weights["fp16"][name] - whole).abs().max().item() for name, whole in weights["none"].items()]
    assert 0 < max(gaps) < 1e-3


@pytest.mark.parametrize(
    ("compress", "reason"),
    [("bf16", "only NCCL, on GPUs, sums gradients in bf16"), ("powersgd", "PowerSGD needs")],
)
def test_what_needs_nccl_is_refused_on_gloo_before_anything_starts(workplace, compress, reason):
    launch = workplace.start("--set", f"ddp.compress={compress}")
    assert launch.wait(60) == 2
    assert "ddp.compress: " in launch.stderr
    assert reason in launch.stderr
    assert "use fp16 or none" in launch.stderr
    assert not workplace.runs.exists() or not list(workplace.runs.iterdir())
