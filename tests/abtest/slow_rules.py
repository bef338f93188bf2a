"""The thirteen rules of ``docs/user-rows.md`` as plain Python, a loop each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from abtest.events import Study

Row = dict[str, Any]


def slow_user_rows(events: list[Row], queries: list[Row], study: Study) -> dict[str, Row]:
    """Client id to its row. Events are flat, with the names of ``abtest.events``."""
    windows = study.windows
    events = [e for e in events if e["at"].date() in windows.days]
    queries = [q for q in queries if q["at"].date() in windows.days]
    # 1
    first: dict[str, Row] = {}
    for event in sorted(events, key=lambda e: e["received_at"]):
        first.setdefault(event["event_id"], event)
    events = [e for e in first.values() if e["client_id"] is not None]
    # 2
    bots = slow_bots(events, study)
    events = [e for e in events if e["client_id"] not in bots]
    queries = [q for q in queries if q["client_id"] not in bots]
    # 3
    deadline = windows.end + timedelta(days=windows.late_days)
    events = [e for e in events if e["received_at"] <= deadline]
    # 4
    before = [e for e in events if windows.first <= e["at"] < windows.start]
    events = [e for e in events if windows.start <= e["at"] < windows.end]
    queries = [q for q in queries if windows.start <= q["at"] < windows.end]
    # 5, 6
    met: dict[str, list[Row]] = defaultdict(list)
    for event in sorted(events, key=lambda e: (e["at"], e["application"] or "~")):
        if (event["action"], event["experiment_id"], event["phase"]) == (
            "exposure",
            study.experiment_id,
            study.phase,
        ):
            met[event["client_id"]].append(event)
    rows = {}
    for client_id, exposures in met.items():
        if any(e["is_forced"] for e in exposures) or len({e["variant"] for e in exposures}) > 1:
            continue
        start = exposures[0]["at"]
        # 7
        own = [e for e in events if e["client_id"] == client_id and e["at"] >= start]
        asked = [q for q in queries if q["client_id"] == client_id and q["at"] >= start]
        row = _sums(own, study)
        earlier = _sums([e for e in before if e["client_id"] == client_id], study)
        row |= {
            f"pre_{name}": earlier[name]
            for name in ("impressions", "clicks", "carts", "contacts", "orders", "amount")
        }
        row["was_there"] = int(any(e["client_id"] == client_id for e in before))
        # 13
        rows[client_id] = row | {
            "client_id": client_id,
            "variant": exposures[0]["variant"],
            "first_exposure_at": start,
            "application": exposures[0]["application"],
            "exposures": len(exposures),
            "fallbacks": sum(e["is_fallback"] for e in exposures),
            "queries": len(asked),
            "zero_result_queries": sum(q["n_items"] == 0 for q in asked),
        }
    return rows


def slow_bots(events: list[Row], study: Study) -> set[str]:
    days = Counter((e["client_id"], e["at"].date()) for e in events)
    minutes = Counter((e["client_id"], e["at"].replace(second=0, microsecond=0)) for e in events)
    bots = {client for (client, _), n in days.items() if n > study.bots.max_a_day}
    bots |= {client for (client, _), n in minutes.items() if n > study.bots.max_a_minute}
    return bots | study.bots.client_ids


def _sums(events: list[Row], study: Study) -> Row:
    """Rules 8 to 12, of one user."""
    of = {
        name: [e for e in events if e["action"] == name] for name in {e["action"] for e in events}
    }
    impressions = of.get("impression", [])
    # 9
    reach = timedelta(minutes=study.windows.click_minutes)
    clicks, clicked = [], set()
    for click in of.get("click", []):
        shown = [
            i["at"]
            for i in impressions
            if _same(i, click, "query_id", "item_id") and i["at"] <= click["at"] <= i["at"] + reach
        ]
        if shown:
            clicks.append(click)
            clicked.add((click["query_id"], click["item_id"], max(shown)))
    # 11
    reach = timedelta(hours=study.windows.order_hours)
    orders = of.get("order", [])
    attributed = [
        o
        for o in orders
        if any(_same(c, o, "item_id") and c["at"] <= o["at"] <= c["at"] + reach for c in clicks)
    ]
    # 12
    ids = {order["order_id"] for order in attributed}
    paid = of.get("pay", [])
    return {
        "impressions": len(impressions),
        "clicks": len(clicks),
        "clicked_impressions": len(clicked),
        "carts": len(of.get("add_to_cart", [])),
        "contacts": len(of.get("contact_supplier", [])),
        "orders": len(orders),
        "attributed_orders": len(attributed),
        "amount": math.fsum(p["amount"] for p in paid),
        "attributed_amount": math.fsum(p["amount"] for p in paid if p["order_id"] in ids),
        "refunds": math.fsum(r["amount"] for r in of.get("refund", [])),
    }


def _same(left: Row, right: Row, *names: str) -> bool:
    return all(left[n] is not None and left[n] == right[n] for n in names)


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[misc]
