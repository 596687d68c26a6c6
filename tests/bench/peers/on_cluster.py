"""The settings of bare Ray Train on a cluster, for the peers that train there."""

import os
from collections.abc import Callable

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from tests.bench.workloads import KILLED_FILE, WORLD_SIZE

_CARRIED = ("BENCH_RESULT", KILLED_FILE)


def fit(train_function: Callable[[], None], *, max_failures: int = 0) -> None:
    """Trains on two hosts of the cluster that RAY_ADDRESS names; the working directory is shipped."""
    variables = {name: os.environ[name] for name in _CARRIED if name in os.environ}
    ray.init(
        address="auto",
        logging_level="ERROR",
        runtime_env={"working_dir": ".", "excludes": [".git", ".venv", "runs"], "env_vars": variables},
    )
    TorchTrainer(
        train_function,
        scaling_config=ScalingConfig(num_workers=WORLD_SIZE, placement_strategy="STRICT_SPREAD"),
        run_config=RunConfig(
            storage_path=os.environ["BENCH_STORAGE"],
            name="peer",
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    ).fit()
