"""`jobs/ddp_script.py` with a session: `distrib run jobs/session_script.py --workers 2`, or plain `python`.

The session replaces the process group, the wrapper, the sampler and the checkpoints. The result is the same on any
number of workers, and a run that was killed or stopped continues exactly: `distrib run … --run-id ID`.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import TensorDataset

import distrib


def main() -> None:
    """Trains a small network on points around three centers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.1)
    options = parser.parse_args()
    torch.manual_seed(0)
    targets = torch.arange(600) % 3
    dataset = TensorDataset(torch.randn(600, 4) + targets[:, None], targets)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    session = distrib.session()
    session.setup(model, optimizer)
    for inputs, labels in session.batches(dataset, batch_size=64, epochs=options.epochs):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        session.backward(loss)
        session.update(optimizer)
        if session.rank == 0 and session.is_due("1 epoch"):
            print(f"epoch {session.epoch + 1}: loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
