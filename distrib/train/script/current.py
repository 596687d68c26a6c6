"""The rank that runs a script in this process, which the script's session joins."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from distrib.train.context import RankConfig, RankContext, RankInfo
from distrib.train.phases import RankProgress

if TYPE_CHECKING:
    import torch.distributed as dist

    from distrib.train.script.session import ScriptSession


@dataclass
class ScriptRank:
    """One rank of a script.

    Attributes:
        config: What all ranks have in common.
        context: The launcher.
        store: The store that all ranks are connected with.
        session: The script's session, once the script has called `distrib.session`.
    """

    config: RankConfig
    context: RankContext
    store: dist.Store
    session: ScriptSession | None = None
    _terminated: threading.Event = field(default_factory=threading.Event)

    @property
    def rank_info(self) -> RankInfo:
        """This rank's numbers."""
        return self.context.rank_info

    def open_store(self, timeout: timedelta) -> dist.Store:
        """A part of the store of the script's own."""
        import torch.distributed as dist

        store = dist.PrefixStore("distrib", self.store)
        store.set_timeout(timeout)
        return store

    @property
    def progress(self) -> RankProgress:
        """This rank's position."""
        return self.context.progress

    def stop_requested(self) -> bool:
        """Whether the launcher has requested a stop, or this rank has received SIGTERM."""
        return self._terminated.is_set() or self.context.stop_requested()

    def await_stops(self) -> None:
        """From now on SIGTERM requests a stop at the next agreed step, unless the script handles it itself."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())


_current: list[ScriptRank] = []


def enter(rank: ScriptRank) -> None:
    """Makes `rank` the one whose script this process runs."""
    _current[:] = [rank]


def current() -> ScriptRank | None:
    """The rank whose script this process runs; None outside of `distrib run`."""
    return _current[0] if _current else None
