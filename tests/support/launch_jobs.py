"""What the jobs of the launchers' tests train: a tiny network, honest or with a fault that strikes on one rank.

The file is copied beside a job's spec, so that it is imported as a user's own module is.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset, TensorDataset, get_worker_info

NUM_FEATURES, NUM_CLASSES = 4, 3


class Samples(TensorDataset):
    """Points around three centres."""

    def __init__(self, count, seed=1):
        generator = torch.Generator().manual_seed(seed)
        targets = torch.arange(count) % NUM_CLASSES
        noise = torch.randn(count, NUM_FEATURES, generator=generator)
        super().__init__(noise + targets[:, None], targets)


class FileSamples(Dataset):
    """Reads each sample, its own index, from a file that stays open; a position shared with others is noticed."""

    def __init__(self, path, count):
        self._count = count
        Path(path).write_bytes(b"".join(index.to_bytes(8) for index in range(count)))
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        for _ in range(100):
            self._file.seek(8 * index)
            os.sched_yield()
            read = int.from_bytes(self._file.read(8))
            if read != index:
                raise ValueError(f"asked for sample {index}, read {read}")
        return torch.full([NUM_FEATURES], float(read)), read % NUM_CLASSES


class LoadedSamples(Dataset):
    """Notes the process that loads; with `fatal` the loader worker that comes to this sample is killed."""

    def __init__(self, count, notes, fatal=None):
        self._samples = Samples(count)
        self._notes = notes
        self._fatal = fatal

    def __len__(self):
        return len(self._samples)

    def __getitem__(self, index):
        if get_worker_info() is not None:
            note(self._notes, "loader", os.getpid())
            if index == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._samples[index]


class Mlp(nn.Module):
    """Has buffers and randomness of its own, which must not depend on the launcher."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, NUM_CLASSES)
        )

    def forward(self, inputs):
        return self.layers(inputs)


class Talkative(Mlp):
    """Says something in every way there is, once."""

    def forward(self, inputs):
        if not hasattr(self, "has_spoken"):
            self.has_spoken = True
            rank = dist.get_rank()
            print(f"print of {rank}")
            print(f"stderr of {rank}", file=sys.stderr)
            subprocess.run(["echo", f"child of {rank}"], check=True)
            print(f"unfinished line of {rank}", end="")
        return super().forward(inputs)


class Slow(Mlp):
    """Takes its time at every step."""

    def __init__(self, seconds=0.01):
        super().__init__()
        self._seconds = seconds

    def forward(self, inputs):
        time.sleep(self._seconds)
        return super().forward(inputs)


class Faulty(Mlp):
    """Notes that it was built; at step `step` on rank `rank` it notes the time and does what `FAULTS` says, once."""

    def __init__(self, fault, notes, rank=1, step=2):
        super().__init__()
        self._fault, self._notes, self._rank, self._step = fault, notes, rank, step
        self._num_passes = -1  # the first is a rehearsal
        note(notes, "built", dist.get_rank())

    def forward(self, inputs):
        self._num_passes += 1
        if self._num_passes == self._step and dist.get_rank() == self._rank and not is_noted(self._notes, self._fault):
            note(self._notes, self._fault, os.getpid())
            FAULTS[self._fault]()
        return super().forward(inputs)


def _raise():
    raise ValueError(f"rank {dist.get_rank()} has had enough")


def _raise_late():
    time.sleep(1)  # by now the others wait in a collective
    _raise()


FAULTS = {
    "raise": _raise,
    "raise late": _raise_late,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sys.exit": lambda: sys.exit(0),
    "os._exit": lambda: os._exit(0),
    "sleep": lambda: time.sleep(60),
    "hold the lock": lambda: ctypes.PyDLL(None).sleep(300),  # native code during which no other thread runs Python
}


def is_noted(path, word):
    """Whether a line of a file begins with this word."""
    return any(line.startswith(word) for line in Path(path).read_text().splitlines())


def note(path, *words):
    """Adds a line to a file: the words and the time; whole, whatever other processes write."""
    line = " ".join(map(str, [*words, time.time()])) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


class SlowSamples(Samples):
    """Takes a while to load a batch, as from a slow network."""

    def __init__(self, count, seconds, first=0):
        super().__init__(count)
        self._seconds, self._first, self._num_loaded = seconds, first, 0

    def __getitem__(self, index):
        self._num_loaded += 1
        if self._num_loaded > self._first:
            time.sleep(self._seconds)
        return super().__getitem__(index)
