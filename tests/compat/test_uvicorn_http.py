"""The HTTP protocol with a deadline is uvicorn's, in the fields that it reads."""

import asyncio
import sys

import pytest
import uvicorn

from distrib.compat.uvicorn_http import protocol_with_deadline


async def answers(protocol, *pieces, pause=0.0):
    """What a server with that protocol sends to a client that sends `pieces`, until it closes the connection."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, lifespan="off", log_level="error"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    server.should_exit = True
    await running
    return received


HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.relies_on("uvicorn.protocols.http.h11_impl.H11Protocol")
@pytest.mark.timeout(60)
def test_a_whole_request_is_answered_and_half_of_one_is_closed():
    protocol = protocol_with_deadline(1.5)
    assert asyncio.run(answers(protocol, HEAD)).startswith(b"HTTP/1.1 200")
    assert asyncio.run(answers(protocol, HEAD[:9])).startswith(b"HTTP/1.1 408")
    assert asyncio.run(answers(protocol, HEAD[:9], HEAD[9:], pause=0.05)).startswith(b"HTTP/1.1 200")


@pytest.mark.timeout(60)
def test_without_the_protocol_uvicorn_takes_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.h11_impl", None)
    assert protocol_with_deadline(0.3) == "auto"
    monkeypatch.undo()
    assert asyncio.run(answers("auto", HEAD)).startswith(b"HTTP/1.1 200")
