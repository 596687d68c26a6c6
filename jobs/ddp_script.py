"""A plain DistributedDataParallel script, as torchrun runs it: `distrib run jobs/ddp_script.py --workers 2`.

Nothing in it is about distrib. With `--checkpoint FILE` it saves after each epoch and resumes from the file.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    """Trains a small network on points around three centers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    train(options)  # the wrapped model is gone before the group: its end can hang after the group's
    dist.destroy_process_group()


def train(options: argparse.Namespace) -> None:
    """Trains, as one of the ranks of the process group."""
    rank = int(os.environ["RANK"])
    torch.manual_seed(0)
    targets = torch.arange(600) % 3
    dataset = TensorDataset(torch.randn(600, 4) + targets[:, None], targets)
    sampler: DistributedSampler[object] = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    first = 0
    if options.checkpoint is not None and options.checkpoint.exists():
        saved = torch.load(options.checkpoint)
        model.load_state_dict(saved["model"])
        first = saved["epoch"] + 1
    for epoch in range(first, options.epochs):
        sampler.set_epoch(epoch)
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
            if options.checkpoint is not None:
                torch.save({"model": model.state_dict(), "epoch": epoch}, options.checkpoint)


if __name__ == "__main__":
    main()
