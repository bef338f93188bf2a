"""Ids are hashed under a key, texts masked, people forgotten, old days removed."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from relevance.data import pii
from serving.erasure import forget, retain
from serving.event_log import EventLog, Spool
from serving.log_proof import verify
from serving.log_store import Change
from serving.privacy import KEY_VARIABLE, hashed, read_key, redacted
from serving.shipping import compact
from tests.serving.collecting import (
    KEY,
    Killed,
    Mortal,
    event,
    ids_in,
    ids_of,
    kept,
    long_ago,
    store_at,
)

SPOOL = Spool(min_free_bytes=1)


def write(spool: Path, events: list[dict[str, object]]) -> list[str]:
    log = EventLog.open(spool, SPOOL)
    made = kept(*events)
    log.append(made)
    log.close()
    return ids_of(made)


def test_a_hash_depends_on_the_id_and_on_the_key() -> None:
    assert hashed("a", KEY) == hashed("a", KEY)
    assert len({hashed("a", KEY), hashed("b", KEY), hashed("a", KEY[::-1])}) == 3
    assert len(hashed("ü" * 512, KEY)) == 32


def test_a_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    assert read_key(file) == KEY
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert read_key() == KEY
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with pytest.raises(ValueError, match="a key of 6 bytes; want 16 to 64") as raised:
        read_key()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "velvet sofa",
        "anna@example.com",
        "4111 1111 1111 1111",
        "+49 30 1234567",
        "10.0.0.1",
        "fe80:abcd:abcd:abcd:abcd:abcd:abcd:abcd",
        "a:b:c:d:e:f:a:b",
    ],
)
def test_the_quick_look_leaves_nothing_unmasked(text: str) -> None:
    assert redacted(text) == pii.mask(text)


def test_a_person_is_forgotten_and_nobody_else(tmp_path: Path) -> None:
    spool, store = tmp_path / "log", store_at(tmp_path / "store")
    write(spool, [event(client_id="anna"), event(client_id="anna", at=long_ago(3))])
    compact(spool, store)
    others = write(
        spool,
        [event(client_id="anna"), event(client_id="b", user_id="anna"), event(client_id="b")],
    )
    erased = forget(spool, store, ["anna", "nobody"], KEY)
    assert sorted(erased.files.values(), key=lambda change: change.before) == [
        Change(1, 0),
        Change(1, 0),
        Change(3, 1),
    ]
    assert (erased.removed, erased.left, erased.in_log) == (4, 0, 0)
    assert set(ids_in(tmp_path / "store")) < set(others)
    assert len(ids_in(tmp_path / "store")) == 1
    assert verify(spool, store) == []
    assert forget(spool, store, ["anna"], KEY).removed == 0


def test_what_is_not_shipped_yet_is_counted(tmp_path: Path) -> None:
    spool, store = tmp_path / "log", store_at(tmp_path / "store")
    log = EventLog.open(spool, SPOOL)
    log.append(kept(event(client_id="anna"), event(client_id="b")))
    assert forget(spool, store, ["anna"], KEY).in_log == 1
    log.close()
    assert forget(spool, store, ["anna"], KEY).removed == 1


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_removal_that_was_interrupted_is_found_and_finished(tmp_path: Path, writes: int) -> None:
    spool, store = tmp_path / "log", store_at(tmp_path / "store")
    write(spool, [event(client_id=name, at=long_ago(d)) for d in (0, 2) for name in "ab"])
    compact(spool, store)
    with pytest.raises(Killed):
        forget(spool, Mortal(store.url, writes, before=False), ["a"], KEY)
    assert len(verify(spool, store)) == 3 - writes
    forget(spool, store, ["a"], KEY)
    assert verify(spool, store) == []
    assert len(ids_in(tmp_path / "store")) == 2


def test_nothing_is_removed_beside_an_unfinished_run(tmp_path: Path) -> None:
    spool, store = tmp_path / "log", store_at(tmp_path / "store")
    write(spool, [event()])
    with pytest.raises(Killed):
        compact(spool, Mortal(store.url, 1, before=False))
    EventLog.open(tmp_path / "other", SPOOL).close()
    with pytest.raises(ValueError, match="of a run that was interrupted"):
        forget(tmp_path / "other", store, ["shopper-1"], KEY)
    with pytest.raises(ValueError, match="of a run that was interrupted"):
        retain(store, 1, datetime.now(UTC).date())


def test_days_are_kept_as_many_as_asked(tmp_path: Path) -> None:
    spool, store = tmp_path / "log", store_at(tmp_path / "store")
    write(spool, [event(at=long_ago(days)) for days in (0, 1, 2, 9)])
    compact(spool, store)
    erased = retain(store, 2, datetime.now(UTC).date())
    assert list(erased.files.values()) == [Change(1, 0), Change(1, 0)]
    assert len(ids_in(tmp_path / "store")) == 2
    assert verify(spool, store) == []
    with pytest.raises(ValueError, match="want 1 or more"):
        retain(store, 0, datetime.now(UTC).date())
