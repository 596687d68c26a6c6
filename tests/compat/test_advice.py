"""Errors whose text does not say what to do get advice; those of DDP and the allocator are provoked for real."""

import pytest
import torch
from torch import nn

from distrib.train.advice import advice_for
from tests.support.ranks import run_ranks


@pytest.mark.parametrize(
    ("type_name", "message", "advice"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "lower data.batch_size"),
        ("MemoryError", "", "the host's memory is full"),
        ("OSError", "[Errno 12] Cannot allocate memory", "the host's memory is full"),
        ("DistNetworkError", "The server socket has failed to listen … EADDRINUSE", "another program uses the port"),
        ("OSError", "[Errno 98] Address already in use", "another program uses the port"),
        ("RuntimeError", "DataLoader worker (pid 3) is killed by signal: Killed.", "lower data.loader_workers"),
        ("RuntimeError", "DataLoader worker (pid 3) is killed by signal: Bus error. … shared memory", "--shm-size"),
        ("DistBackendError", "NCCL error in: ProcessGroupNCCL.cpp", "distrib doctor"),
    ],
)
def test_known_errors(type_name, message, advice):
    assert advice in advice_for(type_name, message)


def test_an_error_of_the_jobs_own_has_none():
    assert advice_for("ValueError", "no such label: 7") is None


@pytest.mark.relies_on("torch: texts of memory that is full")
def test_memory_that_cannot_be_allocated():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert "the host's memory is full" in advice_for("RuntimeError", str(caught.value))


class Half(nn.Module):
    """Does not use one of its two layers."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, inputs):
        return self.used(inputs)


def leave_a_layer_out(_rank, _world_size):
    """The error of the second step."""
    model = nn.parallel.DistributedDataParallel(Half())
    try:
        for _ in range(2):
            model(torch.ones(1, 1)).sum().backward()
    except RuntimeError as error:
        return str(error)
    return "no error"


@pytest.mark.timeout(60)
@pytest.mark.relies_on("torch.nn.parallel: text of unused parameters")
def test_unused_parameters():
    for text in run_ranks(leave_a_layer_out, 2):
        assert "ddp.find_unused_parameters" in advice_for("RuntimeError", text)
