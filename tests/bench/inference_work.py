"""The models and data of the inference family: each side imports them from here; a run of each without training."""

from itertools import pairwise
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from distrib.runs.record import create_record, update_record
from distrib.train.checkpoint.weights import save_weights

WIDTH = 256
NUM_CLASSES = 10
BATCH_SIZE = 64
NUM_ROWS = 24_576

SPEC = """\
name: bench
model: {{target: tests.bench.inference_work:Mlp, args: {{hidden: {hidden}, num_layers: {num_layers}}}}}
data: {{train: {{target: tests.bench.inference_work:Rows}}, batch_size: {batch_size}}}
loss: torch.nn:CrossEntropyLoss
optimizer: torch.optim:SGD
train: {{epochs: 1}}
"""


class Rows(TensorDataset):
    """Pairs of inputs, float32 [256], and a target."""

    def __init__(self, count: int = NUM_ROWS) -> None:
        generator = torch.Generator().manual_seed(0)
        super().__init__(torch.randn(count, WIDTH, generator=generator), torch.arange(count) % NUM_CLASSES)


class Mlp(torch.nn.Sequential):
    """Inputs, float32 [batch, 256], to logits, float32 [batch, 10]."""

    def __init__(self, hidden: int = 1024, num_layers: int = 8) -> None:
        sizes = [WIDTH, *[hidden] * num_layers]
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(hidden, NUM_CLASSES))


def make_run(folder: Path, hidden: int, num_layers: int) -> Path:
    """A finished run with random weights; both sides load them."""
    create_record(folder, name="bench", request={}, schedule=None, provenance={}, input_signature=[
        {"shape": [None, WIDTH], "dtype": "float32"}, {"shape": [None], "dtype": "int64"},
    ])  # fmt: skip
    (folder / "job.yaml").write_text(SPEC.format(hidden=hidden, num_layers=num_layers, batch_size=BATCH_SIZE))
    update_record(folder, status="finished")
    torch.manual_seed(0)
    save_weights(Mlp(hidden, num_layers), folder / "model.safetensors")
    return folder
