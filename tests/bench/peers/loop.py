"""The loop of every peer; rank 0 leaves when its steps ended in the file that BENCH_RESULT names."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bench.workloads import LEARNING_RATE

TIMED_FROM_STEP = 10


def cross_entropy(model: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """The loss of a batch of inputs and targets."""
    inputs, targets = batch
    return torch.nn.functional.cross_entropy(model(inputs), targets)


def train(
    model: torch.nn.Module,
    loader: torch.utils.data.DataLoader,
    *,
    num_steps: int,
    is_rank_zero: bool,
    sampler: torch.utils.data.DistributedSampler | None = None,
    batch_loss: Callable[[torch.nn.Module, list[torch.Tensor]], torch.Tensor] = cross_entropy,
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward,
    prepare_optimizer: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] = lambda optimizer: optimizer,
) -> None:
    """Trains for `num_steps` optimizer steps, epoch after epoch."""
    optimizer = prepare_optimizer(torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE))
    ended, epoch = [], 0
    while len(ended) < num_steps:
        if sampler is not None:
            sampler.set_epoch(epoch)
        for batch in loader:
            loss = batch_loss(model, batch)
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
            ended.append(time.time())
            if len(ended) == num_steps:
                break
        epoch += 1
    if is_rank_zero:
        write_result(ended, loss.item())


def write_result(ended: list[float], loss: float) -> None:
    """Writes what the harness reads: Unix times of the ends of the first, tenth and last step."""
    result = {
        "num_steps": len(ended),
        "first_step_time": ended[0],
        "timed_from_step": TIMED_FROM_STEP,
        "timed_from_time": ended[TIMED_FROM_STEP - 1],
        "last_step_time": ended[-1],
        "loss": loss,
    }
    Path(os.environ["BENCH_RESULT"]).write_text(json.dumps(result))
