"""Programs for two hosts of a lab: one serves, the other sends to it or talks with it.

Run as `python lab_peer.py serve ADDRESS`, `send ADDRESS BYTES` (prints seconds), `talk ADDRESS` (prints what happens).
"""

import socket
import sys
import threading
import time

PORT = 7000
CHUNK = bytes(65536)


def serve(address):
    listener = socket.create_server((address, PORT), family=_family(address))
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection):
    """First an 8-byte count of bytes to come, answered by one; a count of 0 asks for an echo of single bytes."""
    with connection:
        count = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
        if count == 0:
            while byte := connection.recv(1):
                connection.sendall(byte)
            return
        while count > 0:
            count -= len(connection.recv(min(count, 1 << 20)))
        connection.sendall(b".")


def send(address, count):
    with socket.create_connection((address, PORT), timeout=30) as connection:
        begun = time.monotonic()
        connection.sendall(count.to_bytes(8, "big"))
        for _ in range(count // len(CHUNK)):
            connection.sendall(CHUNK)
        connection.recv(1)
        print(time.monotonic() - begun, flush=True)


def talk(address):
    """Says `on` when echoes come, `off` when none has come for half a second; ends by an error where one is met."""
    with socket.create_connection((address, PORT), timeout=30) as connection:
        connection.sendall(bytes(8))
        connection.settimeout(0.5)
        is_on = None
        while True:
            connection.sendall(b".")
            try:
                hears = bool(connection.recv(1))
            except TimeoutError:
                hears = False
            if hears != is_on:
                is_on = hears
                print("on" if is_on else "off", flush=True)
            time.sleep(0.02)


def _family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


if __name__ == "__main__":
    verb, peer, *rest = sys.argv[1:]
    {"serve": serve, "send": send, "talk": talk}[verb](peer, *map(int, rest))
