"""A scorer under load from another process: throughput, latency, overload; prints markdown.

Run ``python benchmarks/serving_load.py --data DATASET --model CHECKPOINT``. The server runs as
users start it, without a cache of scores, so that every pair is scored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import psutil

from relevance.cpus import available_cpus
from relevance.data.tables import read_table
from relevance.scorer import Job, open_scorer

CLIENTS = 32
OVERLOAD = 5
DOCUMENTS = (20, 200)


@dataclass
class Load:
    """What clients saw."""

    seconds: float = 0.0
    pairs: int = 0
    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    client_s: float = 0.0
    """Processor time of the clients, on the server's own cores."""


def main() -> None:
    """Measure offline and the server in turn: at full load, overloaded, and after that."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    titles = read_table(options.data, "products", ["title"]).column("title").to_pylist()
    queries = read_table(options.data, "queries", ["query"]).column("query").to_pylist()
    offline = _offline(options.model, titles, queries)
    offline()  # warm
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "querylift", "serve", "scorer", "--model", options.model, "--cache-mb", 0]
    server = subprocess.Popen(
        [sys.executable, *map(str, command), "--port", str(port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(_measure(options, port, server.pid, titles, queries, offline))
    finally:
        server.terminate()
        server.wait(60)


def _offline(model: Path, titles: list[str], queries: list[str]) -> Callable[[], float]:
    """Measures pairs a second of the same requests without a server, many together."""
    scorer = open_scorer(model, threads=available_cpus())
    rng = np.random.default_rng(0)
    requests = [_request(rng, titles, queries) for _ in range(200)]

    def measure() -> float:
        start = time.perf_counter()
        for at in range(0, len(requests), CLIENTS):
            some = requests[at : at + CLIENTS]
            scorer.score_jobs([Job(query, scorer.prepare(documents)) for query, documents in some])
        return sum(len(documents) for _, documents in requests) / (time.perf_counter() - start)

    return measure


def _request(
    rng: np.random.Generator, titles: list[str], queries: list[str]
) -> tuple[str, list[str]]:
    count = rng.integers(DOCUMENTS[0], DOCUMENTS[1] + 1)
    chosen = rng.integers(0, len(titles), count)
    return queries[rng.integers(0, len(queries))], [titles[row] for row in chosen]


async def _measure(
    options: argparse.Namespace,
    port: int,
    pid: int,
    titles: list[str],
    queries: list[str],
    offline: Callable[[], float],
) -> None:
    rng = np.random.default_rng(1)
    requests = [_request(rng, titles, queries) for _ in range(1_000)]
    # made before, so that the clients take little of the server's cores
    bodies = [
        (json.dumps({"query": query, "documents": documents}).encode(), len(documents))
        for query, documents in requests
    ]
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}",
        connector=aiohttp.TCPConnector(limit=0),
        headers={"content-type": "application/json"},
    ) as client:
        await _ready(client)
        memory = psutil.Process(pid).memory_info

        async def load(clients: int, seconds: float) -> Load:
            found = Load(seconds=seconds)
            busy = time.process_time()
            end = time.monotonic() + seconds
            users = (_user(client, n, end, bodies, found) for n in range(clients))
            await asyncio.gather(*users)
            found.client_s = time.process_time() - busy
            return found

        await load(CLIENTS, options.seconds / 4)  # warm
        print(
            "| clients | pairs/s | offline, before and after | of offline | share of a core "
            "| p50 ms | p99 ms | 429 | p50 of 429 ms | p99 of 429 ms | 503 | RSS MiB |"
        )
        print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
        shares = []
        after = offline()
        for clients in (*[CLIENTS] * 3, OVERLOAD * CLIENTS, *[CLIENTS] * 3):
            before = after
            found = await load(clients, options.seconds)
            after = offline()
            rate = found.pairs / found.seconds
            share = 2 * rate / (before + after)
            if clients == CLIENTS:
                shares.append(share)
            refused = found.refused_s or [0.0]
            print(
                f"| {clients} | {rate:,.0f} | {before:,.0f}, {after:,.0f} | {share:.2f} "
                f"| {found.client_s / found.seconds:.2f} "
                f"| {1e3 * np.percentile(found.answered_s, 50):.0f} "
                f"| {1e3 * np.percentile(found.answered_s, 99):.0f} "
                f"| {found.statuses[429]:,} | {1e3 * np.percentile(refused, 50):.0f} "
                f"| {1e3 * np.percentile(refused, 99):.0f} "
                f"| {found.statuses[503]} | {memory().rss / 2**20:,.0f} |",
                flush=True,
            )
        print(
            f"\n{CLIENTS} clients: {np.median(shares):.2f} of offline in the median of "
            f"{len(shares)}, {min(shares):.2f} to {max(shares):.2f}."
        )
        burst = 1e3 * np.percentile(await _burst(client, bodies), (50, 99))
        print(
            f"\n{OVERLOAD * CLIENTS} requests at one instant: 429 after {burst[0]:.0f} ms in the "
            f"median, {burst[1]:.0f} ms at the 99th percentile."
        )


async def _burst(client: aiohttp.ClientSession, bodies: list[tuple[bytes, int]]) -> list[float]:
    """Seconds to each refusal where all users of the overload ask at one instant, ten times."""
    refused_s: list[float] = []

    async def ask(body: bytes) -> None:
        start = time.monotonic()
        async with client.post("/rerank", data=body) as answer:
            await answer.read()
        if answer.status == 429:
            refused_s.append(time.monotonic() - start)

    for number in range(10):
        some = bodies[number * 50 : number * 50 + OVERLOAD * CLIENTS]
        await asyncio.gather(*(ask(body) for body, _ in some))
    return refused_s


async def _ready(client: aiohttp.ClientSession) -> None:
    for _ in range(600):
        try:
            async with client.get("/readyz") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError("the server is not ready after a minute")


async def _user(
    client: aiohttp.ClientSession,
    number: int,
    end: float,
    bodies: list[tuple[bytes, int]],
    found: Load,
) -> None:
    """One who asks, waits for the answer, and asks again; when refused, after a pause.

    Users come within a second, each at a moment of its own.
    """
    rng = np.random.default_rng(number)
    await asyncio.sleep(rng.random())
    while time.monotonic() < end:
        body, count = bodies[rng.integers(0, len(bodies))]
        start = time.monotonic()
        async with client.post("/rerank", data=body) as answer:
            await answer.read()
        took = time.monotonic() - start
        found.statuses[answer.status] += 1
        if answer.status == 200:
            found.pairs += count
            found.answered_s.append(took)
        else:
            if answer.status == 429:
                found.refused_s.append(took)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    main()
