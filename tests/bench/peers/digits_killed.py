"""Hand-written DDP that resumes after a crash; started by `torchrun --max-restarts 10`, saves by `torch.save`."""

import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from tests.bench.workloads import (
    DIGITS_BATCH_SIZE,
    KILLED_EPOCHS,
    KILLED_FILE,
    LEARNING_RATE,
    WORLD_SIZE,
    Digits,
    FatalMlp,
)

dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.manual_seed(0)
dataset = Digits()
sampler = DistributedSampler(dataset, seed=0)
loader = DataLoader(dataset, batch_size=DIGITS_BATCH_SIZE // WORLD_SIZE, sampler=sampler)
model = DistributedDataParallel(FatalMlp())
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
path = Path(os.environ[KILLED_FILE]).with_name("checkpoint.pt")
first_epoch, restarted_step_time = 0, None
if path.exists():
    checkpoint = torch.load(path)
    model.module.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    first_epoch = checkpoint["epoch"]
for epoch in range(first_epoch, KILLED_EPOCHS):
    sampler.set_epoch(epoch)
    for inputs, targets in loader:
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        restarted_step_time = restarted_step_time or time.time()
    if dist.get_rank() == 0:
        state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        temporary = path.with_suffix(".new")
        torch.save(state, temporary)
        temporary.replace(path)
    dist.barrier()
if dist.get_rank() == 0:
    result = {"first_epoch": first_epoch, "first_step_time": restarted_step_time}
    Path(os.environ["BENCH_RESULT"]).write_text(json.dumps(result))
dist.destroy_process_group()
