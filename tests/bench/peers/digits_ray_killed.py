"""Bare Ray Train that resumes after a crash, on two hosts of a cluster; each epoch reports a checkpoint."""

import json
import os
import tempfile
import time
from pathlib import Path

from tests.bench.peers.on_cluster import fit


def train_function() -> None:
    """What each worker runs."""
    import ray.train
    import torch
    from ray.train import Checkpoint
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler

    from tests.bench.workloads import (
        DIGITS_BATCH_SIZE,
        KILLED_EPOCHS,
        LEARNING_RATE,
        WORLD_SIZE,
        Digits,
        FatalMlp,
    )

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = Digits()
    sampler = DistributedSampler(dataset, seed=0)
    loader = DataLoader(dataset, batch_size=DIGITS_BATCH_SIZE // WORLD_SIZE, sampler=sampler)
    model = DistributedDataParallel(FatalMlp())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    first_epoch, restarted_step_time = 0, None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder, "state.pt"))
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_epoch = state["epoch"]
    is_rank_zero = ray.train.get_context().get_world_rank() == 0
    for epoch in range(first_epoch, KILLED_EPOCHS):
        sampler.set_epoch(epoch)
        for inputs, targets in loader:
            loss = cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            restarted_step_time = restarted_step_time or time.time()
        with tempfile.TemporaryDirectory() as folder:
            if is_rank_zero:
                state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
                torch.save(state, Path(folder, "state.pt"))
            ray.train.report({"epoch": epoch}, checkpoint=Checkpoint(folder) if is_rank_zero else None)
    if is_rank_zero:
        result = {"first_epoch": first_epoch, "first_step_time": restarted_step_time}
        Path(os.environ["BENCH_RESULT"]).write_text(json.dumps(result))


fit(train_function, max_failures=3)
