"""Events, and a collector in a process of its own that can be killed."""

import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq

from abtest.event_door import Door, Refused, decode_events
from abtest.records import Event, uuid7
from serving.log_store import Store
from serving.privacy import private

KEY = b"0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]


def event(*, at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """A click as a browser sends it; None leaves a field out."""
    at = at or datetime.now(UTC)
    sent = {
        "event_id": str(uuid7(at)),
        "action_name": "click",
        "timestamp": at.isoformat(),
        "client_id": "shopper-1",
        "query_id": "query-1",
        "user_query": "velvet sofa",
        "event_attributes": {"position": {"ordinal": 1}, "object": {"object_id": "A1"}},
        **fields,
    }
    return {name: value for name, value in sent.items() if value is not None}


def kept(*sent: dict[str, Any], now: datetime | None = None) -> list[Event]:
    """Events as the log has them."""
    events = []
    for each in decode_events(json.dumps(sent).encode(), now or datetime.now(UTC), Door()):
        assert not isinstance(each, Refused), each.error
        events.append(private(each, KEY))
    return events


def ids_in(store: Path) -> list[str]:
    files = sorted((store / "events").rglob("*.parquet"))
    return [text for file in files for text in pq.ParquetFile(file).read()["event_id"].to_pylist()]


def ids_of(events: list[Event]) -> list[str]:
    return sorted(str(each.event_id) for each in events)


def long_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def id_of(sent: dict[str, Any]) -> UUID:
    return UUID(sent["event_id"])


def store_at(path: Path) -> Store:
    return Store(str(path))


class Killed(Exception):
    pass


class Mortal(Store):
    """A store whose process ends before or after its n-th write."""

    def __init__(self, url: str, writes: int, *, before: bool) -> None:
        super().__init__(url)
        self.writes = writes
        self.before = before

    def _put(self, file: str, content: bytes) -> None:
        self.writes -= 1
        if self.writes or not self.before:
            super()._put(file, content)
        if not self.writes:
            raise Killed


SERVER = """
import resource, sys
from pathlib import Path
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from serving.collector import Collector
from serving.event_log import EventLog, Spool

spool, port, segment_bytes, file_limit = Path(sys.argv[1]), *map(int, sys.argv[2:5])
if file_limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
log = EventLog.open(spool, Spool(segment_bytes=segment_bytes, segment_s=0.3, min_free_bytes=1))
collector = Collector(log, b"0123456789abcdef")
app = Starlette(routes=[Route("/v1/events", collector.post, methods=["POST"])])
uvicorn.run(app, port=port, log_level="warning", access_log=False)
log.close()
"""

SHIPPER = """
import sys
from pathlib import Path
from serving.log_store import Store
from serving.shipping import compact

print(compact(Path(sys.argv[1]), Store(sys.argv[2])))
"""


def run(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


class Server:
    """A collector on a port that stays the same when it is started again."""

    def __init__(
        self, spool: Path, *, segment_bytes: int = 512 * 1024, file_limit: int = 0
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._arguments = (spool, self.port, segment_bytes, file_limit)
        self.start()

    def start(self) -> None:
        self.process = run(SERVER, *self._arguments)
        while not self._answers():
            assert self.process.poll() is None, "the collector ended"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return self.post([])[0] == 200
        except (OSError, HTTPException):
            return False

    def post(self, events: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(
                "POST", "/v1/events", json.dumps(events), {"content-type": "application/json"}
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()
