"""From the store to one row for each exposed user, on disk, and what was dropped on the way.

Users are put together a part at a time: memory is that of a part, however many users there are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from abtest.daily_state import PARTS, Advance, part_of, update
from abtest.events import Study
from abtest.funnel import Funnel, check, findings, funnel, tally
from abtest.store_files import StoreFiles
from abtest.user_days import Days
from abtest.user_rows import seen_users, user_rows, without_bots


class UserTable(NamedTuple):
    """What the statistics of an experiment start from."""

    rows: Any
    """A row for each user."""
    funnel: Funnel
    findings: list[str]
    """What a reader of the result should know."""


def user_table(
    connection: Any,
    store: str | Path,
    state: Path,
    study: Study,
    advance: Advance = lambda done, total: None,
) -> UserTable:
    """The users of a study. What has not changed since the last call is not made again.

    Args:
        connection: Of ``abtest.events.open_duckdb``.
        store: Directory or URL of the Parquet files.
        state: Directory for this study and no other.
        study: The rules.
        advance: Called with days done and days in all.

    Raises:
        FileNotFoundError: The store has no events in the windows.
        ValueError: The state is of another study, or the log would give misleading numbers.
    """
    days = update(connection, StoreFiles(store), state, study, advance)
    made_of = hashlib.blake2b(" ".join(day.name for day in days).encode(), digest_size=8)
    folder = state / f"users-{made_of.hexdigest()}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _make(connection, days, study, partial)
        partial.rename(folder)
    for old in state.glob("users-*"):
        if old != folder:
            shutil.rmtree(old)
    log = json.loads((folder / "log.json").read_text())
    rows = connection.read_parquet(str(folder / "part-*.parquet"))
    return UserTable(rows, Funnel(**log["funnel"]), log["findings"])


def _make(connection: Any, days: list[Path], study: Study, folder: Path) -> None:
    """Write the users' rows, and what is known of the log.

    As for days, SQL is written once, and what changes from part to part is behind views.
    """
    bots = [str(day / "bots.parquet") for day in days]
    _name(connection, "VIEW", "stored_bots", f"SELECT DISTINCT * FROM read_parquet({bots})")
    sql: dict[str, str] = {}
    tallied: Counter[str] = Counter()
    currencies: set[str] = set()
    for part in range(PARTS):
        for name in ("totals", "deeds"):
            found = part_of(days, name, part)
            select = f"SELECT * FROM read_parquet({found}, hive_partitioning = false)"
            _name(connection, "VIEW", f"stored_{name}", select)
        sql = sql or _plan(connection, study)
        _name(connection, "TABLE", "seen", sql["seen"])
        file = folder / f"part-{part:02d}.parquet"
        connection.raw_sql(f"COPY ({sql['rows']}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
        _name(connection, "VIEW", "part_rows", f"SELECT * FROM '{file}'")
        counts = connection.raw_sql(sql["tally"])
        names = [column[0] for column in counts.description]
        tallied.update({n: int(v or 0) for n, v in zip(names, counts.fetchone(), strict=True)})
        currencies |= {row[0] for row in connection.raw_sql(sql["currencies"]).fetchall()}
    logs = [json.loads((day / "counts.json").read_text()) for day in days]
    check(tallied, {name for log in logs for name in log["experiments"]}, currencies, study)
    found_rows = connection.read_parquet(str(folder / "part-*.parquet"))
    variants = sorted(found_rows.select("variant").distinct().to_pyarrow()["variant"].to_pylist())
    dropped = funnel(
        tallied, *(sum(log[n] for log in logs) for n in ("duplicates", "without_client"))
    )
    said = findings(dropped, tallied, variants, study)
    log = {"funnel": dropped._asdict(), "findings": said}
    (folder / "log.json").write_text(json.dumps(log, indent=2))


def _plan(connection: Any, study: Study) -> dict[str, str]:
    days = Days(*(connection.table(f"stored_{name}") for name in Days._fields))
    shoppers = without_bots(days, study)
    made = seen_users(shoppers.totals)
    plan = {"seen": connection.compile(made)}
    _name(connection, "TABLE", "seen", plan["seen"])
    seen = connection.table("seen")
    rows = user_rows(seen, shoppers, study)
    plan["rows"] = connection.compile(rows)
    _name(connection, "VIEW", "part_rows", plan["rows"])
    money = days.deeds.filter(days.deeds.currency.notnull())
    expressions = {
        "tally": tally(days, shoppers, seen, connection.table("part_rows")),
        "currencies": money.select("currency").distinct(),
    }
    return plan | {name: connection.compile(made) for name, made in expressions.items()}


def _name(connection: Any, kind: str, name: str, sql: str) -> None:
    connection.raw_sql(f"CREATE OR REPLACE TEMP {kind} {name} AS {sql}")
