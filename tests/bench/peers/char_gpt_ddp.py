"""Hand-written DDP of the character GPT; started by `torchrun --nproc-per-node 2`."""

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from jobs.char_gpt import IGNORED, Gpt, Text
from tests.bench.peers.loop import train
from tests.bench.workloads import CHAR_GPT_BATCH_SIZE, CHAR_GPT_STEPS, WORLD_SIZE


def mean_over_tokens(model: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """The mean loss over the tokens of one rank's batch."""
    inputs, targets = batch
    return cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def main() -> None:
    """One rank; also the train function of the bare Ray Train peer, where the process group exists already."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = Text("train")
    sampler = DistributedSampler(dataset, seed=0)
    loader = DataLoader(dataset, batch_size=CHAR_GPT_BATCH_SIZE // WORLD_SIZE, sampler=sampler)
    train(
        DistributedDataParallel(Gpt(width=256)),
        loader,
        num_steps=CHAR_GPT_STEPS,
        sampler=sampler,
        batch_loss=mean_over_tokens,
        is_rank_zero=dist.get_rank() == 0,
    )


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.barrier()  # gloo aborts a rank whose peer has gone while it still writes its result
    dist.destroy_process_group()
