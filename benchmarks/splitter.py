"""What a splitter adds to a scorer's answer, and how many requests pass; prints markdown.

Run ``python benchmarks/splitter.py``. The scorer is a null one: the same answer to every request,
from another process. Latency is measured at half of the splitter's saturation, with arrivals that
wait for no answer. A shared machine is twice as fast in one second as in the next, so short rounds
are repeated: saturation anew, then all rows that are compared, beginning with another; medians
over rounds are printed. Where nginx is installed, the same requests pass its ``split_clients``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

import numpy as np
import yaml
from wire import arrivals, saturation

DIRECT, ALONE = "scorer itself", "splitter"
SLOW, DOWN = "splitter, its shadow takes 1 s", "splitter, its shadow is down"
NGINX = "nginx `split_clients`"
_ROW_S = 1.5
_DRAWS = 10_000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def process(port: int, *command: object) -> Iterator[None]:
    """A process that listens on a port, and ends with the block or with us, killed or not."""
    given = list(map(str, command))
    if setpriv := shutil.which("setpriv"):
        given = [setpriv, "--pdeathsig", "TERM", *given]
    nowhere = subprocess.DEVNULL
    running = subprocess.Popen(given, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        _wait(port, running)
        yield
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(10)
        # a worker of nginx that somebody has stopped outlives it, and its master waits for it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _wait(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(1_200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if running.poll() is not None:
            raise RuntimeError(f"{running.args}: ended with {running.returncode}")
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port} after a minute")


@contextlib.contextmanager
def scorer(delay_s: float = 0.0) -> Iterator[int]:
    """A null scorer; gives its port."""
    port = free_port()
    with process(port, sys.executable, Path(__file__).with_name("wire.py"), port, delay_s):
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
    own = Path(tempfile.mkdtemp(dir=directory))
    file = own / "experiments.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    port = free_port()
    command = (
        "from pathlib import Path; from serving.splitter import Routing;"
        "from serving.splitter_app import Settings, serve;"
        # saturated, it shall queue: what falls back is not measured
        f"serve(Settings(Path({str(file)!r}), Path({str(own / 'log')!r}), b'0' * 32, port={port},"
        "drain_s=0, routing=Routing(deadline_s=30)))"
    )
    with process(port, sys.executable, "-c", command):
        yield port


@contextlib.contextmanager
def nginx(directory: Path, upstream: int) -> Iterator[int]:
    """nginx with one worker and two upstreams, chosen by the unit id."""
    port = free_port()
    servers = f"server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000;"
    file = directory / "nginx.conf"
    file.write_text(
        f"""worker_processes 1; pid {directory}/nginx.pid; daemon off; error_log /dev/null;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; keepalive_requests 1000000;
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
    with process(port, "nginx", "-c", file):
        yield port


def measure(directory: Path, rounds: int) -> None:
    """Start everything, repeat the round, and print it."""
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(scorer())
        slow = stack.enter_context(scorer(delay_s=1.0))
        ports = {
            DIRECT: direct,
            ALONE: stack.enter_context(splitter(directory, direct, None)),
            SLOW: stack.enter_context(splitter(directory, direct, slow)),
            DOWN: stack.enter_context(splitter(directory, direct, free_port())),
        }
        most: dict[str, list[float]] = {DIRECT: [], ALONE: []}
        beside = dict(ports)
        if shutil.which("nginx"):
            beside[NGINX] = stack.enter_context(nginx(directory, direct))
            most[NGINX] = []
        for port in beside.values():
            saturation(port, 1.0)  # warm
        gc.disable()
        moments: dict[str, list[np.ndarray]] = {name: [] for name in ports}
        for number in range(rounds):
            for name, rates in most.items():
                rates.append(saturation(beside[name], _ROW_S / 4))
            names = list(ports)
            for name in names[number % 4 :] + names[: number % 4]:
                rate = most[ALONE][-1] / 2
                moments[name].append(arrivals(ports[name], rate, _ROW_S, seed=number))
    _report(most, moments)


def _report(
    most: Mapping[str, Sequence[float]], moments: Mapping[str, Sequence[np.ndarray]]
) -> None:
    print("| through | requests/s | of nginx |\n|---|---:|---:|")
    for name, rates in most.items():
        ratio = f"{np.mean(rates) / np.mean(most[NGINX]):.2f}" if NGINX in most else "not installed"
        print(f"| {name} | {np.mean(rates):,.0f} | {ratio} |")
    half = np.array(most[ALONE]) / 2
    half = np.array(most[ALONE]) / 2
    print(
        f"\nAt half of what the splitter did just before, {half.min():,.0f} to {half.max():,.0f} "
        f"requests/s; {len(half)} rounds, {sum(map(len, moments[ALONE])):,} requests a row:\n"
    )
    late = _ms([np.concatenate(rows)[:, :2] for rows in zip(*moments.values(), strict=True)])
    taken = {name: _ms([row[:, ::2] for row in rows]) for name, rows in moments.items()}
    print("| from when a request was due | p50 ms | p99 ms | worst p99 |\n|---|---:|---:|---:|")
    print(f"| until it was sent, all rows | {_cells(late)} |")
    for name, rows in taken.items():
        print(f"| until the answer of the {name} | {_cells(rows)} |")
    print(f"| **added by the splitter** | {_cells(taken[ALONE] - taken[DIRECT])} |")
    print("\n| over the splitter without a shadow | p50 | p99 | worst p99 |\n|---|---:|---:|---:|")
    for name in (SLOW, DOWN):
        print(f"| {name} | {_cells(taken[name] / taken[ALONE])} |")


def _ms(rounds: Sequence[np.ndarray]) -> np.ndarray:
    """p50 and p99 between two moments, in milliseconds, of each round. [rounds, 2]"""
    return np.array([np.percentile(1e3 * np.diff(row), [50, 99]) for row in rounds])


def _cells(rounds: np.ndarray) -> str:
    """Medians over rounds with 95 % intervals by drawing rounds anew, and the worst of p99."""
    drawn = np.random.default_rng(0).integers(len(rounds), size=(_DRAWS, len(rounds)))
    bounds = np.percentile(np.median(rounds[drawn], axis=1), [2.5, 97.5], axis=0)
    cells = [
        f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        for middle, low, high in zip(np.median(rounds, axis=0), *bounds, strict=True)
    ]
    return " | ".join([*cells, f"{rounds[:, 1].max():.2f}"])


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"ended by {signal.Signals(number).name}")


def main() -> None:
    """Measure, and leave nothing behind whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="of about ten seconds each")
    rounds = parser.parse_args().rounds
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    signal.alarm(120 + 30 * rounds)
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), rounds)


if __name__ == "__main__":
    main()
