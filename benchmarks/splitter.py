"""What a splitter adds to a scorer's answer, and how many requests pass; prints markdown.

Run ``python benchmarks/splitter.py``. The scorer is a null one: the same answer to every request,
from another process. Latency is measured at half of the splitter's saturation, with arrivals that
wait for no answer. Where nginx is installed, the same requests pass its ``split_clients`` too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import numpy as np
import uvicorn
import yaml
from starlette.types import Receive, Scope, Send

ITEMS = 50
CLIENTS = 32
QUERY = "velvet sofa for office"
BODY = json.dumps({"query": QUERY, "documents": [f"Title of item {n}" for n in range(ITEMS)]})
HEADERS = {"content-type": "application/json"}


def null_scorer(port: int, delay_s: float) -> None:
    """Serve the same answer to every request, after a while."""
    results = [{"index": n, "relevance_score": 1 - n / ITEMS} for n in range(ITEMS)]
    content = json.dumps({"id": "0", "model": "null", "results": results}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        if delay_s:
            await asyncio.sleep(delay_s)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    uvicorn.run(app, port=port, log_level="error", access_log=False, lifespan="off", loop="uvloop")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def process(*command: object, **environment: str) -> Iterator[None]:
    """A process that ends with the block."""
    running = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        yield
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def scorer(delay_s: float = 0.0) -> Iterator[int]:
    """A null scorer; gives its port."""
    port = free_port()
    with process(sys.executable, __file__, "--null", port, "--delay-s", delay_s):
        wait(port)
        yield port


@contextlib.contextmanager
def splitter(directory: Path, upstream: int, shadow: int | None) -> Iterator[int]:
    """A splitter in front of the scorer, which is champion and variant; gives its port."""
    arms = ("champion", "challenger")
    experiment = {
        "layer": "ranking",
        "salt": "benchmark",
        "phase": 1,
        "range": [0, 10_000],
        "start": datetime.now(UTC) - timedelta(days=1),
        "end": datetime.now(UTC) + timedelta(days=1),
        "variants": {name: {"weight": 0.5, "scorer": name} for name in arms},
        "primary": ["ctr"],
    }
    ports = dict.fromkeys(arms, upstream)
    if shadow is not None:
        experiment["shadow"] = {"scorer": "shadow", "share": 0.1}
        ports["shadow"] = shadow
    content = {
        "version": 1,
        "unit": "client_id",
        "champion": "champion",
        "scorers": {name: {"url": f"http://127.0.0.1:{port}"} for name, port in ports.items()},
        "layers": {"ranking": {"salt": "benchmark-layer"}},
        "experiments": {"benchmark": experiment},
    }
    file = directory / "experiments.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    port, log = free_port(), tempfile.mkdtemp(dir=directory)
    command = (
        "from pathlib import Path; from serving.splitter import Routing;"
        "from serving.splitter_app import Settings, serve;"
        # saturated, it shall queue: what falls back is not measured
        f"serve(Settings(Path({str(file)!r}), Path({log!r}), b'0' * 32, port={port},"
        "routing=Routing(deadline_s=30)))"
    )
    with process(sys.executable, "-c", command):
        wait(port)
        yield port


@contextlib.contextmanager
def nginx(directory: Path, upstream: int) -> Iterator[int]:
    """nginx with one worker and two upstreams, chosen by the unit id."""
    port = free_port()
    servers = f"server 127.0.0.1:{upstream}; keepalive 64;"
    file = directory / "nginx.conf"
    file.write_text(
        f"""worker_processes 1; pid {directory}/nginx.pid; daemon off; error_log /dev/null;
        events {{ worker_connections 1024; }}
        http {{
          access_log off;
          client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
          fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
          scgi_temp_path {directory}/scgi;
          split_clients "$http_x_client_id" $arm {{ 50% champion; * challenger; }}
          upstream champion {{ {servers} }} upstream challenger {{ {servers} }}
          server {{
            listen 127.0.0.1:{port};
            location / {{
              proxy_pass http://$arm; proxy_http_version 1.1; proxy_set_header Connection "";
            }}
          }}
        }}""",
        encoding="utf-8",
    )
    with process("nginx", "-c", file):
        wait(port)
        yield port


def wait(port: int) -> None:
    """Until somebody listens."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port} after 30 s")


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections without a bound."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def _ask(session: aiohttp.ClientSession, port: int, unit: int) -> float:
    start = time.perf_counter()
    headers = {**HEADERS, "x-client-id": f"shopper-{unit}"}
    url = f"http://127.0.0.1:{port}/rerank"
    async with session.post(url, data=BODY, headers=headers) as answer:
        await answer.read()
        if answer.status != 200 or answer.headers.get("x-querylift-fallback"):
            raise RuntimeError(f"{answer.status} {dict(answer.headers)}")
    return time.perf_counter() - start


async def saturation(port: int, seconds: float) -> float:
    """Requests a second of clients that ask again as soon as they have an answer."""
    done = 0

    async def user(number: int, session: aiohttp.ClientSession, end: float) -> None:
        nonlocal done
        while time.monotonic() < end:
            await _ask(session, port, done * CLIENTS + number)
            done += 1

    async with client() as session:
        end = time.monotonic() + seconds
        await asyncio.gather(*(user(number, session, end) for number in range(CLIENTS)))
    return done / seconds


async def latency(ports: list[int], rate: float, seconds: float) -> list[np.ndarray]:
    """Seconds of requests that arrive at random, to all ports by turns: what disturbs one
    disturbs the others."""  # noqa: D205, D209
    rng = np.random.default_rng(0)
    taken: list[list[float]] = [[] for _ in ports]
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, session: aiohttp.ClientSession) -> None:
        place = number % len(ports)
        taken[place].append(await _ask(session, ports[place], number))

    async with client() as session:
        start, due = time.perf_counter(), 0.0
        for number in range(int(seconds * rate * len(ports))):
            due += rng.exponential(1 / (rate * len(ports)))
            if (pause := start + due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(one(number, session))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    return [np.array(some[len(some) // 10 :]) for some in taken]


def main() -> None:
    """Saturation of each, then latencies side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--null", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--delay-s", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.null:
        null_scorer(options.null, options.delay_s)
        return
    with tempfile.TemporaryDirectory() as scratch, scorer() as direct:
        _measure(Path(scratch), direct, options.seconds)


def _measure(directory: Path, direct: int, seconds: float) -> None:
    with splitter(directory, direct, None) as plain:
        asyncio.run(saturation(plain, seconds / 4))  # warm
        most = asyncio.run(saturation(plain, seconds))
        rows = {"the scorer itself": asyncio.run(saturation(direct, seconds)), "splitter": most}
        if shutil.which("nginx"):
            with nginx(directory, direct) as beside:
                rows["nginx split_clients"] = asyncio.run(saturation(beside, seconds))
        print("| through | requests/s | of nginx |\n|---|---:|---:|")
        for name, rate in rows.items():
            beside_rate = rows.get("nginx split_clients")
            ratio = f"{rate / beside_rate:.2f}" if beside_rate else "not installed"
            print(f"| {name} | {rate:,.0f} | {ratio} |")
        half = most / 2
        print(f"\nAdded at {half:,.0f} requests/s, half of the splitter's most:\n")
        print("| splitter | p50 ms | p99 ms |\n|---|---:|---:|")
        _added("alone", direct, plain, half, seconds)
    slow = scorer(delay_s=1.0)
    with slow as shadow, splitter(directory, direct, shadow) as port:
        _added("its shadow takes 1 s", direct, port, half, seconds)
    with splitter(directory, direct, free_port()) as port:
        _added("its shadow is down", direct, port, half, seconds)


def _added(name: str, direct: int, port: int, rate: float, seconds: float) -> None:
    # each alone, so that neither takes the other's processor
    (own,) = asyncio.run(latency([direct], rate, seconds))
    (through,) = asyncio.run(latency([port], rate, seconds))
    added = [np.percentile(through, q) - np.percentile(own, q) for q in (50, 99)]
    print(f"| {name} | {1e3 * added[0]:.2f} | {1e3 * added[1]:.2f} |")


if __name__ == "__main__":
    main()
