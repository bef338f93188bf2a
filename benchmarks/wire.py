"""A scorer that answers at once and clients that send on time, both as bare as can be.

What they take of two cores is lost to what is measured, and what they wait is added to it: so no
framework and no event loop in the client, and sockets that are looked at to the microsecond.
"""

from __future__ import annotations

import asyncio
import gc
import json
import select
import socket
import sys
import time
from collections import deque

import numpy as np
import uvloop

ITEMS = 50
BODY = json.dumps(
    {
        "query": "velvet sofa for office",
        "documents": [f"Title of item {place}" for place in range(ITEMS)],
    }
).encode()
_MOST = 900
"""Connections of a client at once; ``select`` knows files up to 1,023."""


class _Null(asyncio.Protocol):
    """The same answer to every request, after a while."""

    def __init__(self, answer: bytes, delay_s: float) -> None:
        self._answer = answer
        self._delay_s = delay_s
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if (end := _end(self._received)) is None:
            return
        self._received = self._received[end:]
        if self._delay_s:
            asyncio.get_running_loop().call_later(
                self._delay_s, self._transport.write, self._answer
            )
        else:
            self._transport.write(self._answer)


def serve(port: int, delay_s: float) -> None:
    """Answer every request alike, until the process ends."""
    results = [{"index": n, "relevance_score": 1 - n / ITEMS} for n in range(ITEMS)]
    body = json.dumps({"id": "0", "model": "null", "results": results}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )

    async def go() -> None:
        loop = asyncio.get_running_loop()
        answer = head.encode() + body
        server = await loop.create_server(lambda: _Null(answer, delay_s), "127.0.0.1", port)
        await server.serve_forever()

    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(go())


def _end(message: bytes) -> int | None:
    """Bytes of the first message; None where it is not whole yet."""
    end = message.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    length = message[:end].lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]
    end += int(length)
    return end if len(message) >= end else None


class _Clients:
    """Requests in flight to one port, each over a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[socket.socket] = []
        self._busy: dict[socket.socket, tuple[float, float, bytearray]] = {}
        self._sent = 0

    def __enter__(self) -> _Clients:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in (*self._idle, *self._busy):
            connection.close()

    @property
    def in_flight(self) -> int:
        return len(self._busy)

    def send(self, due: float) -> None:
        if len(self._busy) >= _MOST:
            raise RuntimeError(f"port {self._port}: {_MOST} requests wait; it does not keep up")
        connection = self._idle.pop() if self._idle else self._connected()
        now = time.perf_counter()
        head = (
            "POST /rerank HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"x-client-id: shopper-{self._sent}\r\ncontent-length: {len(BODY)}\r\n\r\n"
        )
        connection.sendall(head.encode() + BODY)
        self._sent += 1
        self._busy[connection] = due, now, bytearray()

    def receive(self, wait_s: float) -> list[tuple[float, float, float]]:
        """Moments of requests that are answered: due, sent, done."""
        done = []
        for connection in select.select(list(self._busy), [], [], max(0.0, wait_s))[0]:
            due, sent, received = self._busy[connection]
            data = connection.recv(2**18)
            received += data
            if not data:
                raise RuntimeError(f"port {self._port}: closed after {bytes(received[:200])!r}")
            if _end(bytes(received)) is None:
                continue
            if not received.startswith(b"HTTP/1.1 200") or b"x-querylift-fallback" in received:
                raise RuntimeError(f"port {self._port}: {bytes(received[:400])!r}")
            del self._busy[connection]
            self._idle.append(connection)
            done.append((due, sent, time.perf_counter()))
        return done

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def saturation(port: int, seconds: float, clients: int = 32) -> float:
    """Requests a second of clients that ask again as soon as they have an answer.

    Raises:
        RuntimeError: There is none, or an answer is none.
    """
    done = 0
    with _Clients(port) as some:
        start = now = time.perf_counter()
        while now < start + seconds:
            while some.in_flight < clients:
                some.send(now)
            done += len(some.receive(1.0))
            now = time.perf_counter()
    if not done:
        raise RuntimeError(f"port {port}: no answer in {seconds:g} s")
    return done / (now - start)


def arrivals(port: int, rate: float, seconds: float, seed: int) -> np.ndarray:
    """Moments of requests that arrive at random and wait for no answer. [requests, 3]

    Due, sent and done, in seconds. A tenth at the beginning, while connections are opened, is left
    out.

    Raises:
        RuntimeError: An answer is none, is a fallback, or far too many wait.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
    due = deque(np.cumsum(gaps).tolist())
    moments: list[tuple[float, float, float]] = []
    with _Clients(port) as some:
        start = time.perf_counter()
        while due or some.in_flight:
            while due and start + due[0] <= time.perf_counter():
                some.send(start + due.popleft())
            left = start + due[0] - time.perf_counter() if due else 1.0
            moments += some.receive(left)
    return np.array(sorted(moments)[len(moments) // 10 :])


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
