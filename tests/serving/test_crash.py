"""SIGKILL under load: what was acknowledged is in the store exactly once.

``QUERYLIFT_KILLS`` says how many times; ``make crash`` asks for 50.
"""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from serving import segments
from serving.log_proof import verify
from serving.shipping import compact
from tests.serving.collecting import SHIPPER, Server, event, ids_in, run, store_at

KILLS = int(os.environ.get("QUERYLIFT_KILLS", "3"))
CLIENTS = 4


class Client(threading.Thread):
    """Sends batches, each until it is answered, and remembers what was acknowledged."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.acknowledged: list[str] = []
        self.refused = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.is_set():
            batch = [event() for _ in range(random.randrange(1, 40))]
            while not self.sent(batch) and not self.is_over.is_set():
                time.sleep(0.01)

    def sent(self, batch: list[dict[str, Any]]) -> bool:
        try:
            status, answer = self.server.post(batch)
        except (OSError, HTTPException):
            return False
        if status == 503:
            self.refused += 1
            return False
        assert (status, answer["accepted"]) == (200, len(batch)), answer
        self.acknowledged += [each["event_id"] for each in batch]
        return True


def start(server: Server) -> list[Client]:
    clients = [Client(server) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    return clients


def finish(clients: list[Client]) -> list[str]:
    """Stop clients; ids that were acknowledged."""
    for client in clients:
        client.is_over.set()
    for client in clients:
        client.join()
    return [event_id for client in clients for event_id in client.acknowledged]


def test_what_was_acknowledged_outlives_any_kill(tmp_path: Path) -> None:
    spool, store = tmp_path / "log", tmp_path / "store"
    server = Server(spool)
    clients = start(server)
    shipper = run(SHIPPER, spool, store)
    for _ in range(KILLS):
        # importing takes most of the first second of a shipper's life
        moment = time.monotonic() + random.uniform(0.2, 2.0)
        while time.monotonic() < moment:
            time.sleep(0.01)
            if shipper.poll() is not None:
                shipper = run(SHIPPER, spool, store)
        server.kill()
        if random.random() < 0.5:
            shipper.kill()
            shipper.wait()
        server.start()
    acknowledged = finish(clients)
    server.kill()
    shipper.wait()
    check(spool, store, acknowledged)


def check(spool: Path, store: Path, acknowledged: list[str]) -> None:
    compact(spool, store_at(store))
    found = ids_in(store)
    assert len(found) == len(set(found))
    assert len(acknowledged) == len(set(acknowledged)) > 0
    assert set(acknowledged) <= set(found)
    assert verify(spool, store_at(store)) == []
    assert [segment.lines for segment in segments.segments(spool)] == [None]


def test_a_disk_that_fills_up_refuses_and_loses_nothing(tmp_path: Path) -> None:
    spool, store = tmp_path / "log", tmp_path / "store"
    # no file may pass 20 kB, so that each segment ends with writes that fail
    server = Server(spool, segment_bytes=1_000_000, file_limit=20_000)
    clients = start(server)
    while sum(client.refused for client in clients) < 20:
        time.sleep(0.01)
    server.kill()
    server.start()
    time.sleep(1)
    acknowledged = finish(clients)
    server.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(10)
    server.kill()
    check(spool, store, acknowledged)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_refuses_until_it_is_shipped(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        spool, store = disk / "log", tmp_path / "store"
        server = Server(spool, segment_bytes=200_000)
        clients = start(server)
        while sum(client.refused for client in clients) < 5:
            time.sleep(0.01)
        first = sum(len(client.acknowledged) for client in clients)
        assert run(SHIPPER, spool, store).wait() == 0
        while sum(len(client.acknowledged) for client in clients) < first + 100:
            time.sleep(0.01)
        acknowledged = finish(clients)
        server.kill()
        check(spool, store, acknowledged)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
