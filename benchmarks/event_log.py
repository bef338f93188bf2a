"""Events a second that a collector acknowledges, each synced to the disk first.

A collector in a process of its own, 16 clients in this one, loopback HTTP, in batches of 50 and one
by one; then the log is shipped and proved.

    python benchmarks/event_log.py [DIR]

DIR (default: a temporary one) should be on the disk to be measured: a file system in memory syncs
in no time. What is acknowledged in a second is an end-to-end figure of client and server together.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import psutil

from abtest.records import Event, EventAttributes, Item, Position, uuid7
from serving.log_proof import verify
from serving.log_store import Store
from serving.shipping import compact

CLIENTS = 16
SECONDS = 10.0

SERVER = """
import sys
from pathlib import Path
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from serving.collector import Collector
from serving.event_log import EventLog

log = EventLog.open(Path(sys.argv[1]))
collector = Collector(log, b"0123456789abcdef")
app = Starlette(routes=[Route("/v1/events", collector.post, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
log.close()
"""


def body(count: int) -> bytes:
    """A list of fresh impressions in an HTTP request."""
    now = datetime.now(UTC)
    events = [
        Event(
            event_id=uuid7(now),
            action_name="impression",
            timestamp=now,
            query_id="01890a5d-ac96-774b-bcce-b302099a8057",
            session_id="84266fdbd31d4c2c6d0665f7e8380fa3",
            client_id=f"shopper-{place % 7}",
            user_query="velvet sofa 3 seater",
            event_attributes=EventAttributes(
                position=Position(ordinal=place + 1), object=Item(object_id=f"B07{place:07d}")
            ),
        )
        for place in range(count)
    ]
    content = msgspec.json.encode(events)
    head = (
        "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def client(port: int, batch: int, until: float, waits: list[float]) -> None:
    """Send batches one after another; seconds that each waited for its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        request = body(batch)
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        answer = await reader.readexactly(length)
        assert answer == b'{"accepted":%d,"refused":[]}' % batch, answer
        waits.append(time.perf_counter() - began)
    writer.close()


async def load(port: int, batch: int, seconds: float) -> tuple[float, np.ndarray]:
    """Events a second, and milliseconds of each request."""
    waits: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(client(port, batch, began + seconds, waits) for _ in range(CLIENTS)))
    return len(waits) * batch / (time.perf_counter() - began), np.array(waits) * 1_000


def measure(directory: Path, port: int) -> None:
    """Run the load, ship, prove, and print it all."""
    spool, store = directory / "log", Store(str(directory / "store"))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(spool), str(port)])
    try:
        asyncio.run(ready(port))
        print(f"{CLIENTS} clients, {os.cpu_count()} cores, {SECONDS:g} s each\n")
        print("| events a request | events/s | p50 ms | p99 ms | server's CPU µs an event |")
        print("|---:|---:|---:|---:|---:|")
        for batch in (50, 1):
            asyncio.run(load(port, batch, 1.0))
            before = cpu_seconds(server)
            rate, waits = asyncio.run(load(port, batch, SECONDS))
            cpu_us = (cpu_seconds(server) - before) / (len(waits) * batch) * 1e6
            p50, p99 = np.percentile(waits, [50, 99])
            print(f"| {batch} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {cpu_us:.1f} |", flush=True)
    finally:
        server.terminate()
        server.wait()
    began = time.perf_counter()
    done = compact(spool, store)
    seconds = time.perf_counter() - began
    print(f"\nshipped {done.records:,} events in {seconds:.1f} s: {done.records / seconds:,.0f}/s")
    began = time.perf_counter()
    print(f"findings: {verify(spool, store)}; proved in {time.perf_counter() - began:.1f} s")


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """That a process has used so far, of all cores together."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


async def ready(port: int) -> None:
    """Wait until the collector listens."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--port", type=int, default=8_765)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as scratch:
        measure(Path(scratch), asked.port)


if __name__ == "__main__":
    main()
