"""Hand-written DDP as the tutorials show it; started by `torchrun --nproc-per-node 2`."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from tests.bench.peers.loop import train
from tests.bench.workloads import DIGITS_BATCH_SIZE, DIGITS_EPOCHS, WORLD_SIZE, Digits, Mlp


def main() -> None:
    """One rank; also the train function of the bare Ray Train peer, where the process group exists already."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = Digits()
    sampler = DistributedSampler(dataset, seed=0)
    loader = DataLoader(dataset, batch_size=DIGITS_BATCH_SIZE // WORLD_SIZE, sampler=sampler)
    num_steps = DIGITS_EPOCHS * len(loader)
    model = DistributedDataParallel(Mlp())
    train(model, loader, num_steps=num_steps, sampler=sampler, is_rank_zero=dist.get_rank() == 0)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.barrier()  # gloo aborts a rank whose peer has gone while it still writes its result
    dist.destroy_process_group()
