"""Real servers on loopback: scorers that can be told to fail, and a splitter before them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import yaml
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abtest.records import KINDS
from serving.api import application
from serving.limits import Limits
from serving.segments import read_lines, segments
from tests.serving.fake import FakeAnswering

KEY = b"0123456789abcdef"


@contextlib.contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """A server in a thread; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@dataclass
class FaultyScorer:
    """A scorer's real API, until it is told otherwise."""

    version: str
    fault: str = ""
    """hang, reset, a status, or the body of a 200."""
    asked: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last request."""
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        fake = FakeAnswering(version=self.version)
        self._api = application(lambda: fake, Limits())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._api(scope, receive, send)
        self.asked += 1
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if not self.fault:
            return await self._api(scope, receive, send)
        if self.fault == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            return None
        if self.fault == "reset":
            raise ConnectionResetError
        is_status = self.fault.isdecimal() and len(self.fault) == 3
        start: Message = {
            "type": "http.response.start",
            "status": int(self.fault) if is_status else 200,
            "headers": [(b"content-type", self.content_type.encode())],
        }
        await send(start)
        await send({"type": "http.response.body", "body": self.fault.encode()})


def experiments(scorers: dict[str, str], **experiment: Any) -> dict[str, Any]:
    """An experiment file: everybody is in, half of them in the treatment."""
    return {
        "version": 1,
        "unit": "client_id",
        "champion": "champion",
        "scorers": {name: {"url": url} for name, url in scorers.items()},
        "layers": {"ranking": {"salt": "ranking-2026-10"}},
        "experiments": {
            "new-ranking": {
                "layer": "ranking",
                "salt": "new-ranking",
                "phase": 1,
                "range": [0, 10_000],
                "start": datetime.now(UTC) - timedelta(days=1),
                "end": datetime.now(UTC) + timedelta(days=30),
                "variants": {
                    "control": {"weight": 0.5, "scorer": "champion"},
                    "treatment": {"weight": 0.5, "scorer": "challenger"},
                },
                "forced": {"qa-control": "control", "qa-treatment": "treatment"},
                "primary": ["ctr"],
                **experiment,
            }
        },
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    """Put a file in place of another, in one step."""
    beside = path.with_suffix(".new")
    beside.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return beside.rename(path)


def logged(log: Path, kind: str) -> list[Any]:
    """Records of a log, oldest first."""
    lines = [line for segment in segments(log) for line in read_lines(segment.path)]
    assert None not in lines
    struct = KINDS[kind].struct
    return [msgspec.json.decode(line.content, type=struct) for line in lines if line.kind == kind]


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def eventually(condition: Any, seconds: float = 10.0) -> None:
    """Wait until something is true, without a loop."""
    asyncio.run(until(condition, seconds))
