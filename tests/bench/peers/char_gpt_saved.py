"""Hand-written DDP that saves as tutorials show it: rank 0 calls `torch.save`, the others wait at a barrier."""

import json
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from jobs.char_gpt import IGNORED, Text
from tests.bench.workloads import (
    BALLAST_MEGABYTES,
    CHAR_GPT_BATCH_SIZE,
    LEARNING_RATE,
    SAVED_STEPS,
    WORLD_SIZE,
    Ballasted,
)

NUM_SAVES = 3
STEPS_BETWEEN_SAVES = 8
"""Fewer than ours, since training pauses while it saves."""
assert NUM_SAVES * STEPS_BETWEEN_SAVES < SAVED_STEPS


def save(model: DistributedDataParallel, optimizer: torch.optim.Optimizer, path: Path) -> float:
    """Saves; returns for how many seconds training stood still."""
    started = time.perf_counter()
    if dist.get_rank() == 0:
        torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}, path)
    dist.barrier()
    return time.perf_counter() - started


dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.manual_seed(0)
dataset = Text("train")
sampler = DistributedSampler(dataset, seed=0)
loader = DataLoader(dataset, batch_size=CHAR_GPT_BATCH_SIZE // WORLD_SIZE, sampler=sampler)
model = DistributedDataParallel(Ballasted(BALLAST_MEGABYTES))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
stalls = []
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    for number, (inputs, targets) in enumerate(loader, start=1):
        logits = model(inputs).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % STEPS_BETWEEN_SAVES == 0:
            stalls.append(save(model, optimizer, Path(folder, "checkpoint.pt")))
        if len(stalls) == NUM_SAVES:
            break
if dist.get_rank() == 0:
    Path(os.environ["BENCH_RESULT"]).write_text(json.dumps({"stalls": stalls}))
dist.destroy_process_group()
