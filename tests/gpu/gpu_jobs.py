"""Models for tests on GPUs; copied into the folder of each job."""

import os

import torch
from torch import nn


class Images(torch.utils.data.Dataset):
    """Random images, which depend on nothing but their number: float32 [3, 8, 8], and a class of 4."""

    def __init__(self, count=64):
        generator = torch.Generator().manual_seed(count)
        self.inputs = torch.randn(count, 3, 8, 8, generator=generator)
        self.targets = torch.randint(4, (count,), generator=generator)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


class Conv(nn.Module):
    """A small network, channels last if wanted; notes the most memory that its tensors took on a GPU.

    Args:
        channels_last: The memory format of its weights.
        nan_at: The forward pass whose outputs are not finite; 0: none.
    """

    def __init__(self, channels_last=False, nan_at=0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 4)
        )
        if channels_last:
            self.layers = self.layers.to(memory_format=torch.channels_last)
        self._nan_at, self._num_calls = nan_at, 0

    def forward(self, inputs):
        self._num_calls += 1
        if inputs.is_cuda:
            with open(f"memory-{os.environ.get('RANK', 0)}", "w") as file:
                file.write(str(torch.cuda.max_memory_allocated()))
        outputs = self.layers(inputs)
        return outputs * float("nan") if self._num_calls == self._nan_at else outputs
