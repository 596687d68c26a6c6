"""A limit on how long a client may take to send the head of a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distrib.compat.symbols import PrivateSymbol

if TYPE_CHECKING:
    from asyncio import Transport

SYMBOLS = (
    PrivateSymbol(
        "uvicorn.protocols.http.h11_impl.H11Protocol",
        "uvicorn has no limit on the time to receive a request's head, so that slow clients hold connections for ever",
        ("0.54",),
        "uvicorn's own protocol, without the limit; also if it lacks `cycle` or `response_complete`",
    ),
)
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_UNKNOWN = object()
"""Stands for the request at work in a version that does not keep it in `cycle`: there, nothing is closed."""


def protocol_with_deadline(seconds: float) -> type[asyncio.Protocol] | str:
    """uvicorn's HTTP protocol, closing connections whose next request's head is not complete within `seconds`.

    Returns:
        What `uvicorn.Config` takes as `http`.
    """
    try:
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError:
        return "auto"

    class DeadlineProtocol(H11Protocol):
        """Closes a connection that stays without a complete head for too long."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            """Starts waiting for the first head."""
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            """Data that does not complete a head does not extend the time."""
            super().data_received(data)
            if not self._is_idle():
                self._cancel_deadline()
            elif self._deadline is None:
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            """Stops waiting."""
            self._cancel_deadline()
            super().connection_lost(exc)

        def _is_idle(self) -> bool:
            cycle: Any = getattr(self, "cycle", _UNKNOWN)
            return cycle is None or getattr(cycle, "response_complete", False)

        def _await_head(self) -> None:
            self._deadline = self.loop.call_later(seconds, self._close_late)

        def _cancel_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _close_late(self) -> None:
            self._deadline = None
            if self._is_idle() and not self.transport.is_closing():
                self.transport.write(_TIMED_OUT)
                self.transport.close()

    return DeadlineProtocol
