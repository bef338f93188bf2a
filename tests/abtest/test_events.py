from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from abtest import daily_state
from abtest import events as log_events
from abtest import user_table as tables
from abtest.at_once import user_rows_at_once
from abtest.events import Bots, Study, Windows, hashed, open_duckdb
from abtest.user_table import UserTable, user_table
from tests.abtest.made_logs import event, exposure, random_log, write_store
from tests.abtest.slow_rules import slow_bots, slow_user_rows, utc

STUDY = Study(
    "ei",
    1,
    Windows(utc(2026, 11, 2, 6), utc(2026, 11, 5, 18), late_days=1, pre_days=1.5),
    Bots(max_a_minute=9, max_a_day=20, client_ids=frozenset({"client-3"})),
)


@pytest.fixture(scope="module", autouse=True)
def _few_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (daily_state, tables):
            patch.setattr(module, "PARTS", 2)
        yield


@pytest.fixture(scope="module")
def duckdb() -> Iterator[Any]:
    with open_duckdb() as connection:
        yield connection


def read(
    connection: Any, store: Path, study: Study = STUDY, state: Path | None = None
) -> UserTable:
    return user_table(connection, store, state or store / "state", study)


def as_dict(table: Any) -> dict[str, dict[str, Any]]:
    return {row["client_id"]: row for row in table.to_pyarrow().to_pylist()}


def same(connection: Any, table: Any, expected: dict[str, dict[str, Any]]) -> None:
    rows, known = as_dict(table), numbers(connection, list(expected))
    assert rows.keys() == set(known.values())
    for client_id, row in expected.items():
        row["first_exposure_at"] = row["first_exposure_at"].replace(tzinfo=None)
        row["client_id"] = known[client_id]
        assert rounded(rows[known[client_id]]) == rounded(row), client_id


def numbers(connection: Any, client_ids: list[str]) -> dict[str, int]:
    """Each client's id in the tables."""
    texts = ibis.memtable({"text": client_ids})
    made = texts.select("text", number=hashed(texts.text, connection.name))
    return dict(connection.to_pyarrow(made).select(["text", "number"]).to_pandas().values)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {n: round(v, 6) if isinstance(v, float) else v for n, v in sorted(row.items())}


@settings(
    max_examples=4,
    deadline=None,
    # seeds do not shrink
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), minutes=st.sampled_from([0, 30, 45]))
def test_rows_equal_those_of_the_slow_rules(duckdb: Any, seed: int, minutes: int) -> None:
    study = replace(STUDY, windows=replace(STUDY.windows, click_minutes=minutes))
    events, queries = random_log(seed, study)
    with TemporaryDirectory() as folder:
        write_store(Path(folder), events, queries)
        found = read(duckdb, Path(folder), study)
        same(duckdb, found.rows, slow_user_rows(events, queries, study))
        counts = found.funnel
        days = study.windows.days
        assert counts.rows["read"] == sum(e["at"].date() in days for e in events)
        assert counts.users["kept"] == len(slow_user_rows(events, queries, study))


AT = utc(2026, 11, 3, 12)
SHOWN = {"query_id": "q", "item_id": "i"}
MONEY = {"order_id": "o", "amount": 20.0, "currency": "EUR", "item_id": "i"}
SMALL = [
    exposure(AT, "a", "control", application="web"),
    event("impression", AT + timedelta(minutes=1), "a", **SHOWN),
    event("click", AT + timedelta(minutes=2), "a", **SHOWN),
    event("order", AT + timedelta(minutes=3), "a", **MONEY),
    event("pay", AT + timedelta(minutes=4), "a", **MONEY),
    exposure(AT, "b", "treatment", application="web"),
]
DAY = replace(
    STUDY, windows=replace(STUDY.windows, start=utc(2026, 11, 3), end=utc(2026, 11, 4), pre_days=0)
)
PLANTED = {
    "duplicate": [e | {"received_at": e["received_at"] + timedelta(1)} for e in SMALL],
    "without_client": [event("impression", AT + timedelta(1), None, **SHOWN)],
    "bot": [
        exposure(AT, "client-3", "control"),
        exposure(AT, "quick", "control"),
        *[event("impression", AT, "quick", **SHOWN) for _ in range(10)],
        exposure(AT, "busy", "control"),
        *[event("impression", AT + timedelta(minutes=n), "busy", **SHOWN) for n in range(20)],
    ],
    "late": [event("impression", AT + timedelta(hours=1), "a", delay=timedelta(4), **SHOWN)],
    "outside": [event("impression", utc(2026, 11, 3, 18), "a", **SHOWN)],
    "not_exposed": [
        exposure(AT, "c", "control", phase=2),
        exposure(AT, "c", "control", experiment_id="other"),
    ],
    "forced": [exposure(AT, "d", "control", is_forced=True)],
    "crossover": [exposure(AT, "e", "control"), exposure(AT, "e", "treatment")],
    "before_exposure": [event("impression", AT - timedelta(microseconds=1), "a", **SHOWN)],
    "click_without_impression": [
        event("click", AT + timedelta(minutes=32), "a", **SHOWN),
        event("click", AT + timedelta(minutes=2), "a", query_id="q", item_id="other"),
    ],
}


def test_what_the_rules_drop_changes_no_row_and_is_counted(duckdb: Any, tmp_path: Path) -> None:
    study = replace(DAY, windows=replace(DAY.windows, end=utc(2026, 11, 3, 18)))
    log = SMALL
    write_store(tmp_path / "clean", log, [])
    clean = read(duckdb, tmp_path / "clean", study)
    planted = [row for name in PLANTED for row in PLANTED[name]]
    write_store(tmp_path / "planted", log + planted, [])
    found = read(duckdb, tmp_path / "planted", study)
    assert as_dict(found.rows) == as_dict(clean.rows)
    counts = dict(found.funnel.rows)
    assert counts.pop("read") == len(log + planted) - 1
    assert counts.pop("kept") == len(log)
    # of the day after the window nothing is read
    expected = {name: len(rows) for name, rows in PLANTED.items()}
    assert counts == {**expected, "pre_period": 0, "without_client": 0}


def test_a_user_without_events_is_a_row_of_zeros(duckdb: Any, tmp_path: Path) -> None:
    write_store(tmp_path, SMALL, [])
    found = read(duckdb, tmp_path, DAY)
    row = as_dict(found.rows)[numbers(duckdb, ["b"])["b"]]
    assert row["variant"] == "treatment"
    assert (row["impressions"], row["clicks"], row["orders"], row["amount"]) == (0, 0, 0, 0)


def test_second_clicks_late_orders_and_refunds_are_told_apart(duckdb: Any, tmp_path: Path) -> None:
    more = [
        event("click", AT + timedelta(minutes=5), "a", **SHOWN),
        event("order", AT + timedelta(hours=25), "a", **MONEY | {"order_id": "late"}),
        event("pay", AT + timedelta(hours=26), "a", **MONEY | {"order_id": "late", "amount": 5.0}),
        event("refund", AT + timedelta(hours=27), "a", **MONEY | {"amount": -7.0}),
    ]
    write_store(tmp_path, SMALL + more, [])
    found = read(duckdb, tmp_path)
    row = as_dict(found.rows)[numbers(duckdb, ["a"])["a"]]
    assert (row["clicks"], row["clicked_impressions"]) == (2, 1)
    assert (row["orders"], row["attributed_orders"]) == (2, 1)
    assert (row["amount"], row["attributed_amount"], row["refunds"]) == (25.0, 20.0, -7.0)


def test_days_are_made_once_and_again_when_rows_come_late(duckdb: Any, tmp_path: Path) -> None:
    events, queries = random_log(7, STUDY)
    write_store(tmp_path, events[::2], queries)
    state = tmp_path / "state"
    read(duckdb, tmp_path, STUDY, state)
    made = {path.name for path in state.iterdir()}
    read(duckdb, tmp_path, STUDY, state)
    assert {path.name for path in state.iterdir()} == made
    write_store(tmp_path, events[1::2], [], part="1")
    found = read(duckdb, tmp_path, STUDY, state)
    same(duckdb, found.rows, slow_user_rows(events, queries, STUDY))


def test_a_day_reads_no_day_but_those_beside_it(duckdb: Any, tmp_path: Path) -> None:
    events, queries = random_log(8, STUDY)
    write_store(tmp_path, events, queries)
    state = tmp_path / "state"
    read(duckdb, tmp_path, STUDY, state)
    made = {path.name for path in state.iterdir()}
    late = event("impression", utc(2026, 11, 1, 12), "client-1", **SHOWN)
    write_store(tmp_path, [late], [], part="late")
    read(duckdb, tmp_path, STUDY, state)
    again = {path.name[:10] for path in state.glob("2026-*") if path.name not in made}
    assert again == {"2026-10-31", "2026-11-01", "2026-11-02"}


def test_a_killed_update_is_done_again(duckdb: Any, tmp_path: Path) -> None:
    write_store(tmp_path, SMALL, [])
    found = read(duckdb, tmp_path, DAY)
    expected = as_dict(found.rows)
    folder = next((tmp_path / "state").glob("2026-11-03-*"))
    shutil.move(folder, folder.with_name(f"{folder.name}.partial"))
    found = read(duckdb, tmp_path, DAY)
    assert as_dict(found.rows) == expected


def test_a_state_of_other_settings_is_refused(duckdb: Any, tmp_path: Path) -> None:
    write_store(tmp_path, SMALL, [])
    read(duckdb, tmp_path, DAY)
    with pytest.raises(ValueError, match="made with other settings"):
        read(duckdb, tmp_path, replace(DAY, phase=2))


BAD = {
    "amounts in EUR, USD: want one currency": MONEY | {"currency": "USD"},
    "1 amounts of pay: want finite numbers, 0 or more": MONEY | {"amount": -1.0},
    "1 amounts of pay: want finite": MONEY | {"amount": float("nan")},
}


@pytest.mark.parametrize("message", BAD)
def test_amounts_that_would_mislead_are_refused(duckdb: Any, tmp_path: Path, message: str) -> None:
    paid = event("pay", AT + timedelta(minutes=9), "a", **BAD[message])
    write_store(tmp_path, [*SMALL, paid], [])
    with pytest.raises(ValueError, match=message):
        read(duckdb, tmp_path, DAY)


def test_an_experiment_that_nobody_met_is_refused(duckdb: Any, tmp_path: Path) -> None:
    write_store(tmp_path, SMALL, [])
    other = replace(DAY, phase=3)
    with pytest.raises(ValueError, match="ei/3: no exposures in the log, which has ei/1"):
        read(duckdb, tmp_path, other)


def test_two_clients_of_one_number_are_refused(
    duckdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(id_: Any, engine: str) -> Any:
        number = hashed(id_, engine)
        # the check, which is of the text read backwards, stays whole
        return number if "Reverse" in type(id_.op()).__name__ else (number * 0).cast("uint64")

    monkeypatch.setattr(log_events, "hashed", small)
    log = [exposure(AT, "a", "control"), event("impression", AT + timedelta(days=1), "b")]
    write_store(tmp_path, log, [])
    message = "client ids: 1 of their numbers of 64 bits stand for two clients or more, want none"
    with pytest.raises(ValueError, match=message):
        read(duckdb, tmp_path)
    with pytest.raises(ValueError, match=message):
        user_rows_at_once(duckdb, tmp_path, tmp_path / "scratch", STUDY)


def test_no_events_at_all_are_no_study(duckdb: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing from 2026-10-31 to 2026-11-05"):
        read(duckdb, tmp_path)


def test_findings_name_what_is_odd(duckdb: Any, tmp_path: Path) -> None:
    log = [exposure(AT, "a", "control"), exposure(AT, "b", "x"), exposure(AT, "b", "control")]
    write_store(tmp_path, log, [])
    found = read(duckdb, tmp_path, DAY)
    assert found.findings == [
        "1 full days, want 7 or more: weekdays differ",
        "50.00% of users met more than one variant, want 1% or less",
        "users of 1 variants (control), want 2 or more",
        "no impressions of any user in the study",
        "no clicks of any user in the study",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": utc(2026, 1, 2).replace(tzinfo=None)}, "has no zone"),
        ({"end": utc(2020, 1, 1)}, "want after the start"),
        ({"click_minutes": -1}, "want 0 or more"),
    ],
)
def test_impossible_windows_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STUDY.windows, **given)


def test_bots_of_the_slow_rules_are_found_by_minute_and_by_day() -> None:
    quick = [event("view", AT, "quick") for _ in range(10)]
    assert slow_bots(quick, STUDY) == {"quick", "client-3"}
