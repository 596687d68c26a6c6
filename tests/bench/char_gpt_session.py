"""The training of tests/bench/peers/char_gpt_ddp.py as a script with a session."""

import torch

import distrib
from jobs.char_gpt import Gpt, Text
from tests.bench.peers.char_gpt_ddp import mean_over_tokens
from tests.bench.workloads import CHAR_GPT_BATCH_SIZE, CHAR_GPT_STEPS, LEARNING_RATE


def main() -> None:
    """One rank."""
    torch.manual_seed(0)
    session = distrib.session(checkpoint="never")
    model = Gpt(width=256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    session.setup(model, optimizer)
    for batch in session.batches(Text("train"), batch_size=CHAR_GPT_BATCH_SIZE, steps=CHAR_GPT_STEPS):
        loss = mean_over_tokens(model, batch)
        optimizer.zero_grad()
        session.backward(loss)
        session.update(optimizer)


if __name__ == "__main__":
    main()
