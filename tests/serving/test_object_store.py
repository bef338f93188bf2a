"""Shipping to an object store: servers that speak its API, over HTTP."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from serving.erasure import forget, retain
from serving.event_log import EventLog, Spool
from serving.log_proof import verify
from serving.log_store import Store
from serving.shipping import compact
from tests.serving.collecting import KEY, Killed, Mortal, event, kept, long_ago


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """A bucket of Amazon's API."""
    # one that is kept speaks to a server that is gone
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        pytest.importorskip("boto3").client("s3").create_bucket(Bucket="shop")
        yield "s3://shop"
    server.stop()


@contextlib.contextmanager
def gs() -> Iterator[str]:
    """A bucket of Google's API."""
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="shop")
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield "gs://shop"
    server.stop()


@pytest.fixture(scope="module", params=[s3, gs])
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as url:
        yield url


@pytest.fixture
def store(bucket: str) -> Store:
    return Store(f"{bucket}/{uuid4().hex}")


def write(spool: Path, *sent: dict[str, object]) -> None:
    log = EventLog.open(spool, Spool(min_free_bytes=1))
    log.append(kept(*sent))
    log.close()


def ids_in(store: Store) -> list[str]:
    return sorted(
        each for file in store.files() for each in store.read(file)["event_id"].to_pylist()
    )


def test_each_record_is_there_once_and_a_segment_s_second_copy_is_not(
    tmp_path: Path, store: Store
) -> None:
    sent = [event(), event(at=long_ago(2)), event()]
    write(tmp_path / "log", *sent)
    assert compact(tmp_path / "log", store).files == 2
    write(tmp_path / "log", *sent, event())
    again = Store(store.url)
    assert compact(tmp_path / "log", again).duplicates == 3
    assert len(ids_in(store)) == len(set(ids_in(store))) == 4
    assert verify(tmp_path / "log", store) == []


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_run_that_ends_at_any_write_is_finished_by_the_next(
    tmp_path: Path, store: Store, writes: int, before: bool
) -> None:
    sent = [event(), event(at=long_ago(2))]
    write(tmp_path / "log", *sent)
    with contextlib.suppress(Killed):
        compact(tmp_path / "log", Mortal(store.url, writes, before=before))
    assert verify(tmp_path / "log", store) == []
    compact(tmp_path / "log", store)
    assert ids_in(store) == sorted(str(each["event_id"]) for each in sent)
    assert verify(tmp_path / "log", store) == []


def test_people_and_days_are_taken_out(tmp_path: Path, store: Store) -> None:
    write(
        tmp_path / "log",
        event(client_id="anna"),
        event(client_id="b"),
        event(client_id="anna", at=long_ago(3)),
    )
    erased = forget(tmp_path / "log", store, ["anna"], KEY)
    assert (erased.removed, erased.left, erased.in_log) == (2, 0, 0)
    assert len(ids_in(store)) == 1
    assert retain(store, 1, long_ago(-2).date()).removed == 1
    assert store.files() == verify(tmp_path / "log", store) == []


def test_what_was_lost_in_the_store_is_found(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "log", event())
    compact(tmp_path / "log", store)
    (file,) = store.files()
    store.remove(file)
    assert verify(tmp_path / "log", store) == [f"{file}: missing, want 1 rows"]
