"""Bare Ray Train on two hosts of a cluster; started by `python` on its head."""

from tests.bench.peers.on_cluster import fit


def train_function() -> None:
    """What each worker runs; imported here because the driver itself need not load any of it."""
    from tests.bench.peers.digits_ddp import main

    main()


fit(train_function)
