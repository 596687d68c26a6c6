"""Whether all ranks have the same order of samples, checked when an epoch begins."""

from __future__ import annotations

import torch.distributed as dist

from distrib.train.data.order import Order
from distrib.train.data.target_order import OrderError
from distrib.train.process.process_groups import gather_rows


class OrderCheck:
    """Compares the ranks' orders by their digests, one number for each rank and epoch.

    Args:
        order: The order; those that cannot differ are not compared.
        group: All ranks.
    """

    def __init__(self, order: Order, group: dist.ProcessGroup) -> None:
        self._order = order
        self._group = group
        self._epoch: int | None = None

    def begin_step(self, epoch: int) -> None:
        """Compares the order of `epoch` if this is its first step here; all ranks call it together.

        Raises:
            OrderError: It differs.
        """
        if epoch == self._epoch:
            return
        self._epoch = epoch
        if dist.get_world_size(self._group) == 1 or (digest := self._order.digest(epoch)) is None:
            return
        digests = [row[0] for row in gather_rows([float(digest)], self._group)]
        for rank, other in enumerate(digests):
            if other != digests[0]:
                raise OrderError(
                    f"ranks 0 and {rank} have different orders of epoch {epoch}; it must depend on nothing but the "
                    "dataset, the epoch and the seed"
                )
