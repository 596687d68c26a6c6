"""Training on GPUs: over NCCL, in every precision, resumed to the same bits; `make test-gpu` runs it."""

import json
import subprocess
import sys

import pytest

from tests.gpu.conftest import REPOSITORY

pytestmark = pytest.mark.timeout(600)

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
CPU = pytest.param("cpu", marks=pytest.mark.long)
DIGITS, CHAR_GPT = (str(REPOSITORY / "jobs" / name) for name in ("digits.yaml", "char_gpt.yaml"))

ONE, TWO = pytest.param(1, marks=pytest.mark.gpu), pytest.param(2, marks=pytest.mark.gpu(count=2))


def losses(training):
    return [event["loss"] for event in training.events("train")]


@pytest.mark.parametrize("workers", [ONE, TWO])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("job", [DIGITS, CHAR_GPT], ids=["digits", "char_gpt"])
def test_the_loss_falls(make_training, job, precision, workers):
    length = ["train.epochs=null", "train.steps=60", f"train.precision={precision}", "train.log_every=10"]
    training = make_training("cuda").finish(*length, job=job, options=["--workers", str(workers)])
    first, *_, last = losses(training)
    assert last < 0.9 * first
    (start,) = training.events("start")
    assert (start["world_size"], start["device"].startswith("cpu")) == (workers, False)


@pytest.mark.parametrize("device", [CUDA, CPU])
@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("model.args.channels_last=true",),
        ("optimizer.args.fused=true",),
        ("model.args.channels_last=true", "optimizer={target: torch.optim:SGD, args: {lr: 0.01, momentum: 0.9}}"),
        ("data.loader_workers=1",),
        ("train.precision=bf16",),
    ],
    ids=["plain", "channels last", "fused", "SGD channels last", "loader workers", "bf16"],
)
def test_killed_and_resumed_to_the_same_bits(make_training, device, sets):
    reference = make_training(device).finish(*sets)
    killed = make_training(device)
    killed.kill_after(10, *sets)
    killed.finish(*sets)
    assert killed.weights == reference.weights
    assert len(killed.events("start")) == 2


@pytest.mark.gpu
def test_fp16_with_its_scaler_is_resumed_to_the_same_bits(make_training):
    reference, killed = make_training("cuda").finish("train.precision=fp16"), make_training("cuda")
    killed.kill_after(10, "train.precision=fp16")
    assert killed.finish("train.precision=fp16").weights == reference.weights


@pytest.mark.parametrize("device", [CUDA, CPU])
def test_a_loss_that_is_not_finite_is_found(make_training, device):
    training = make_training(device).finish("model.args.nan_at=4", exit_code=1)
    assert "not finite" in training.output or "non-finite" in training.output


@pytest.mark.gpu
@pytest.mark.parametrize("compress", ["bf16", "fp16", "powersgd"])
def test_compressed_gradients_over_nccl(make_training, compress):
    training = make_training("cuda").finish(f"ddp.compress={compress}")
    assert losses(training)[-1] < losses(training)[0]


@pytest.mark.gpu
def test_the_plan_bounds_the_memory_of_weights_gradients_and_optimizer(make_training):
    training = make_training("cuda").finish()
    command = [sys.executable, "-m", "distrib", "plan", "job.yaml", "--json", "--device", "cuda"]
    done = subprocess.run(command, cwd=training.folder, capture_output=True, text=True, check=True, timeout=120)
    memory = json.loads(done.stdout)["memory"]
    planned = sum(memory[name] for name in ("weights_bytes", "gradients_bytes", "optimizer_bytes"))
    peak = int((training.folder / "memory-0").read_text())
    assert planned <= peak <= planned + 64 * 2**20  # activations and workspaces of a small model
