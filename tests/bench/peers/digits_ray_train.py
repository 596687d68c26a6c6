"""Bare Ray Train in a local Ray cluster; started by `python`."""

import tempfile

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from tests.bench.workloads import WORLD_SIZE


def train_function() -> None:
    """What each worker runs; imported here because the driver itself need not load any of it."""
    from tests.bench.peers.digits_ddp import main

    main()


ray.init(address="local", num_cpus=WORLD_SIZE + 1, include_dashboard=False, logging_level="ERROR")
with tempfile.TemporaryDirectory() as storage:
    TorchTrainer(
        train_function,
        scaling_config=ScalingConfig(num_workers=WORLD_SIZE),
        run_config=RunConfig(storage_path=storage, name="peer"),
    ).fit()
