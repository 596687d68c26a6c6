"""Lightning Fabric; started by `python`, it starts the second rank itself."""

import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from tests.bench.peers.loop import train
from tests.bench.workloads import DIGITS_BATCH_SIZE, DIGITS_EPOCHS, WORLD_SIZE, Digits, Mlp

fabric = Fabric(accelerator="cpu", devices=WORLD_SIZE, strategy="ddp")
fabric.launch()
torch.set_num_threads(1)
torch.manual_seed(0)
model = fabric.setup_module(Mlp())
loader = fabric.setup_dataloaders(DataLoader(Digits(), DIGITS_BATCH_SIZE // WORLD_SIZE, shuffle=True))
train(
    model,
    loader,
    num_steps=DIGITS_EPOCHS * len(loader),
    backward=fabric.backward,
    prepare_optimizer=fabric.setup_optimizers,
    is_rank_zero=fabric.is_global_zero,
)
