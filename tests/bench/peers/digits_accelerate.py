"""Hugging Face Accelerate; started by `torchrun --nproc-per-node 2`.

Not by `accelerate launch --cpu --num_processes 2`, which trained in one process without a word (version 1.15.0).
"""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from tests.bench.peers.loop import train
from tests.bench.workloads import DIGITS_BATCH_SIZE, DIGITS_EPOCHS, WORLD_SIZE, Digits, Mlp

accelerator = Accelerator(cpu=True)
if accelerator.num_processes != WORLD_SIZE:
    raise SystemExit(f"Accelerate runs {accelerator.num_processes} processes instead of {WORLD_SIZE}")
torch.set_num_threads(1)
torch.manual_seed(0)
model, loader = accelerator.prepare(Mlp(), DataLoader(Digits(), DIGITS_BATCH_SIZE // WORLD_SIZE, shuffle=True))
train(
    model,
    loader,
    num_steps=DIGITS_EPOCHS * len(loader),
    backward=accelerator.backward,
    prepare_optimizer=accelerator.prepare,
    is_rank_zero=accelerator.is_main_process,
)
accelerator.end_training()
