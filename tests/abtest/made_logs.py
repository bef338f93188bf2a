"""Small logs, made so that many rules bite, as stores of Parquet."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from abtest.events import Study
from abtest.record_tables import schema_of
from abtest.records import KINDS, uuid7_time

Row = dict[str, Any]
OFFSETS_S = (0, 1, 60, 1_799, 1_800, 1_801, 3_600, 86_400, 86_401)
ACTIONS = (
    ("impression",) * 8
    + ("click",) * 6
    + ("order", "order", "order", "pay", "pay", "refund")
    + ("add_to_cart", "contact_supplier", "view")
    + ("exposure", "exposure")
)


def event(action: str, at: datetime, client_id: str | None, **given: Any) -> Row:
    """A flat event; what is not given is None."""
    ms = int((at + given.pop("id_off", timedelta(0))).timestamp() * 1_000)
    serial = given.pop("serial", None) or random.getrandbits(62)
    names = "application query_id item_id experiment_id phase variant is_fallback is_forced"
    names += " order_id amount currency"
    return {
        "event_id": str(UUID(int=ms << 80 | 0x7 << 76 | 0b10 << 62 | serial)),
        "received_at": at + given.pop("delay", timedelta(seconds=1)),
        "at": at,
        "action": action,
        "client_id": client_id,
        **dict.fromkeys(names.split()),
        **given,
    }


def exposure(at: datetime, client_id: str, variant: str, **given: Any) -> Row:
    """A unit met a variant of phase 1 of ``ei``."""
    facts = {"experiment_id": "ei", "phase": 1, "is_fallback": False, "is_forced": False}
    return event("exposure", at, client_id, variant=variant, **{**facts, **given})


def random_log(seed: int, study: Study, clients: int = 160) -> tuple[list[Row], list[Row]]:
    """Events and queries whose times are near one another, and near the edges of windows."""
    rng = random.Random(seed)
    windows = study.windows
    midnights = [
        datetime(day.year, day.month, day.day, tzinfo=windows.start.tzinfo) for day in windows.days
    ]
    anchors = [windows.start, windows.end, windows.first, *midnights]
    events, queries = [], []
    for number in range(clients):
        client_id = f"client-{number}"
        variant = rng.choice(("control", "treatment"))
        anchor = rng.choice(anchors)
        if rng.random() < 0.8:
            before = timedelta(seconds=rng.choice(OFFSETS_S[:5]))
            events.append(_random_event(rng, anchor - before, client_id, variant, "exposure"))
        for _ in range(rng.randint(5, 25)):
            at = anchor + rng.choice((-1, 1)) * timedelta(seconds=rng.choice(OFFSETS_S))
            at += timedelta(days=rng.choice((0, 0, 0, 1)), microseconds=rng.choice((-1, 0, 0, 1)))
            action = rng.choice(ACTIONS)
            events.append(_random_event(rng, at, client_id, variant, action))
            if rng.random() < 0.1:
                queries.append({"at": at, "client_id": client_id, "n_items": rng.choice((0, 20))})
    again = rng.choices(events, k=len(events) // 10)
    events += [e | {"received_at": e["received_at"] + timedelta(days=5)} for e in again]
    rng.shuffle(events)
    return events, queries


def _random_event(
    rng: random.Random, at: datetime, client_id: str, variant: str, action: str
) -> Row:
    given: Row = {
        "serial": rng.getrandbits(62),
        "query_id": rng.choice(("q1",) * 7 + ("q2", "q2", None)),
        "item_id": rng.choice(("i1", "i1", "i1", "i2")),
        "application": rng.choice(("web", "app")),
        "delay": rng.choice((timedelta(seconds=1),) * 9 + (timedelta(days=2),)),
        "id_off": timedelta(hours=rng.choice((0,) * 9 + (-23, 23))),
    }
    if action in ("order", "pay", "refund"):
        sign = -1 if action == "refund" else 1
        given |= {"order_id": rng.choice(("o1", "o2")), "currency": "EUR"}
        given["amount"] = sign * rng.randint(0, 9_999) / 100
    if action == "exposure":
        given |= {
            "variant": variant if rng.random() < 0.99 else "control",
            "phase": rng.choice((1,) * 9 + (2,)),
            "experiment_id": rng.choice(("ei",) * 9 + ("other",)),
            "is_fallback": rng.random() < 0.2,
            "is_forced": rng.random() < 0.01,
        }
        return exposure(at, client_id, **given)
    return event(action, at, client_id if rng.random() < 0.98 else None, **given)


def experiments_content(name: str, start: datetime, days: int, /, **changes: Any) -> dict[str, Any]:
    """An experiment file: everybody is in, half of them in the treatment."""
    return {
        "version": 3,
        "unit": "client_id",
        "champion": "bert",
        "scorers": {"bert": {"url": "http://a"}, "ei-src": {"url": "http://b"}},
        "layers": {"ranking": {"salt": "ranking"}},
        "experiments": {
            name: {
                "layer": "ranking",
                "salt": name,
                "phase": 1,
                "range": [0, 10_000],
                "start": start,
                "end": start + timedelta(days=days),
                "variants": {
                    "control": {"weight": 0.5, "scorer": "bert"},
                    "treatment": {"weight": 0.5, "scorer": "ei-src"},
                },
                "primary": ["ctr", "pay"],
                **changes,
            }
        },
    }


def write_store(store: Path, events: list[Row], queries: list[Row], part: str = "0") -> None:
    """Write a log as it is shipped, but for what shipping drops."""
    days: dict[tuple[str, date], list[Row]] = defaultdict(list)
    for row in events:
        days["events", uuid7_time(UUID(row["event_id"])).date()].append(_nested(row))
    for row in queries:
        days["queries", row["at"].date()].append(_query(row))
    for (table, day), rows in days.items():
        kind = next(kind for kind in KINDS.values() if kind.table == table)
        folder = store / table / f"date={day.isoformat()}"
        folder.mkdir(parents=True, exist_ok=True)
        made = pa.Table.from_pylist(rows, schema_of(kind.struct))
        pq.write_table(made, folder / f"part-{part}.parquet", compression="zstd")


def _nested(row: Row) -> Row:
    names = ("experiment_id", "phase", "variant", "is_fallback", "is_forced")
    met = {name: row[name] for name in names} if row["experiment_id"] else None
    money = {name: row[name] for name in ("order_id", "amount", "currency")}
    return {
        **{n: row[n] for n in ("event_id", "received_at", "application", "query_id", "client_id")},
        "timestamp": row["at"],
        "action_name": row["action"],
        "event_attributes": {
            "position": {"ordinal": 0},
            "object": {"object_id": row["item_id"]} if row["item_id"] else None,
            "experiment": met,
            "commerce": money if row["order_id"] else None,
        },
    }


def _query(row: Row) -> Row:
    return {
        "timestamp": row["at"],
        "client_id": row["client_id"],
        "query_attributes": {
            "n_items": row["n_items"],
            "latency_ms": row.get("latency_ms", 1.0),
            "is_fallback": False,
        },
    }
