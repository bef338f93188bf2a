"""The scorer's server in a process of its own: readiness, draining, mistakes, threads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from relevance.cpus import available_cpus
from relevance.manifest import write_manifest
from tests.checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from querylift.cli import main\nmain()"
# loads, answers and dies as told, where a real model is too quick to be caught at it
SLOW = """
import asyncio, sys
import numpy as np
from pathlib import Path
from serving.answers import Answer
from serving.scorer import Settings, serve

class Slow:
    model, version, source = "slow", "0" * 16, "here"

    async def texts(self, query, titles):
        await asyncio.sleep(float(query))
        scores = np.zeros(len(titles), np.float32)
        return Answer(scores, scores, len(titles), 0)

    async def close(self):
        print("closed", flush=True)

async def opened(settings, source):
    while not Path(sys.argv[2]).exists():
        await asyncio.sleep(0.01)
    if Path(sys.argv[2]).read_text():
        raise ValueError(Path(sys.argv[2]).read_text())
    return Slow()

serve(Settings(sys.argv[1], port=0, drain_s=float(sys.argv[3])), opened)
"""


class Server:
    """A process that serves, and its log."""

    def __init__(self, code: str, *arguments: object, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def url(self) -> str:
        marker = "listening on "
        wait_for(lambda: marker in self.log or self.process.poll() is not None, self)
        return self.log.partition(marker)[2].partition('"')[0]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def rerank(self, query: str, titles: list[str]) -> httpx.Response:
        body = {"query": query, "documents": titles}
        return httpx.post(f"{self.url}/rerank", json=body, timeout=30)

    def wait_until_ready(self) -> None:
        url = self.url
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200, self)

    def end(self) -> int:
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=10)
        return code


def wait_for(happened: Callable[[], bool], server: Server, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if happened():
                return
        except httpx.TransportError:
            pass
        assert server.process.poll() is None, server.log
        time.sleep(0.02)
    raise TimeoutError(server.log)


@pytest.fixture(scope="module")
def checkpoint(
    vocabulary: Path, clicked_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("scorer")
    write_checkpoint("bert", root / "tiny", vocabulary, clicked_data)
    return root / "tiny"


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def start_slow(checkpoint: Path, tmp_path: Path, servers: list[Server]) -> Callable[..., Server]:
    def start(drain_s: float = 20, *, is_loaded: bool = True) -> Server:
        server = Server(SLOW, checkpoint, tmp_path / "go", drain_s, home=tmp_path)
        servers.append(server)
        if is_loaded:
            (tmp_path / "go").touch()
            server.wait_until_ready()
        return server

    return start


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "serve", "scorer", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_serves_a_checkpoint_and_ends_well(
    checkpoint: Path, tmp_path: Path, servers: list[Server]
) -> None:
    server = Server(COMMAND, "serve", "scorer", "--model", checkpoint, "--port", 0, home=tmp_path)
    servers.append(server)
    server.wait_until_ready()
    answer = server.rerank("red lamp", ["red lamp 12v", "blue kettle", "green shirt"])
    assert answer.status_code == 200
    assert sorted(result["index"] for result in answer.json()["results"]) == [0, 1, 2]
    assert server.get("/livez").status_code == 200
    assert server.get("/").headers["content-type"].startswith("text/html")
    assert server.get("/nothing").status_code == 404
    metrics = server.get("/metrics").text
    assert 'querylift_model_info{model="tiny",source="' in metrics
    assert 'querylift_requests_total{endpoint="/rerank",status="200"} 1.0' in metrics
    assert "querylift_alias_changed 0.0" in metrics
    # pools are as large as there are processors, not as the host has them
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    threads = int(status.partition("Threads:")[2].split()[0])
    assert threads < 16 + 4 * available_cpus()
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 0
    records = [json.loads(line) for line in server.lines]
    assert {record["message"] for record in records} >= {"ready", "request"}
    # nothing is left in anybody's home
    assert not (tmp_path / "bentoml").exists()


def test_until_it_is_loaded_it_is_alive_and_not_ready(
    start_slow: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_slow(is_loaded=False)
    wait_for(lambda: server.get("/livez").status_code == 200, server)
    assert server.get("/readyz").status_code == 503
    refused = server.rerank("0", ["a"])
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    (tmp_path / "go").touch()
    server.wait_until_ready()
    assert server.rerank("0", ["a"]).status_code == 200


def test_what_is_in_flight_is_answered_and_what_is_new_refused(
    start_slow: Callable[..., Server],
) -> None:
    server = start_slow()
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(server.rerank, "2.5", ["a", "b"]) for _ in range(16)]
        wait_for(lambda: "querylift_requests_in_flight 17.0" in server.get("/metrics").text, server)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.get("/readyz").status_code == 503, server)
        assert server.rerank("0", ["a"]).status_code == 503
        assert server.get("/livez").status_code == 200
        assert [answer.result().status_code for answer in answers] == [200] * 16
    assert server.end() == 0
    assert server.process.stdout
    assert server.process.stdout.read() == "closed\n"


def test_a_request_that_outlasts_the_drain_is_cut(start_slow: Callable[..., Server]) -> None:
    server = start_slow(drain_s=0.5)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.rerank, "25", ["a"])
        wait_for(lambda: "querylift_requests_in_flight 2.0" in server.get("/metrics").text, server)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.end()
        assert time.monotonic() - started < 10
        assert answer.result().status_code == 500


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error(
    start_slow: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_slow(is_loaded=False)
    wait_for(lambda: server.get("/livez").status_code == 200, server)
    (tmp_path / "written").write_text("no such precision")
    (tmp_path / "written").rename(tmp_path / "go")
    assert server.end() != 0
    assert "ValueError: no such precision" in server.log


def test_a_missing_checkpoint_and_a_pickle_are_wrong_use(checkpoint: Path, tmp_path: Path) -> None:
    done = run("--model", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr == (
        f"querylift: {tmp_path / 'none'}: missing; want the directory of a checkpoint\n"
    )
    pickled = shutil.copytree(checkpoint, tmp_path / "pickled")
    (pickled / "weights.pkl").write_bytes(b"\x80\x04.")
    write_manifest(pickled)
    done = run("--model", pickled)
    assert done.returncode == 2
    assert "weights.pkl: refused, it could hold code" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_named(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--model", checkpoint, "--port", port)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}: Address already in use" in done.stderr
