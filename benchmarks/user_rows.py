"""From an event log to effects: how long, and in how much memory; prints a markdown table.

Run ``python benchmarks/user_rows.py --scratch DIR`` (``--users 5_000_000`` makes 20 M events, the
default). The log is made once and the same every time: fourteen days, one search a user with
three results shown, a click by one in six, an order by one in sixty.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from abtest.daily_state import update
from abtest.events import Study, Windows, open_duckdb
from abtest.metrics import METRICS
from abtest.moments import columns_of, moments
from abtest.stats import compare, estimate
from abtest.user_table import user_table

DAYS = 14
FIRST = datetime(2026, 11, 2, tzinfo=UTC)
STUDY = Study("ei", 1, Windows(FIRST, FIRST + timedelta(days=DAYS)))
_ID = "lower(lpad(hex(epoch_ms(ts)), 12, '0'))"
_LOG = f"""
WITH users AS (
    SELECT range AS u, md5(range::VARCHAR) AS client_id,
        md5('q' || range)::UUID::VARCHAR AS query_id,
        TIMESTAMPTZ '{{day}} 00:00:00+00' + to_milliseconds(draw(range, 't', 85_000_000)) AS t0,
        draw(range, 'click', 6) = 0 AS has_click, draw(range, 'which', 3) AS clicked,
        draw(range, 'more', 10) AS more
    FROM range({{first}}, {{last}})
), events AS (
    SELECT *, t0 AS ts, 'exposure' AS action, -1 AS k, 0 AS n FROM users
    UNION ALL SELECT users.*, t0 + to_milliseconds(300 + k), 'impression', k, 1 + k
        FROM users, range(3) shown(k) WHERE more < 9 OR k = 0
    UNION ALL SELECT *, t0 + to_milliseconds(30_000), 'click', clicked, 4 FROM users WHERE has_click
    UNION ALL SELECT *, t0 + to_milliseconds(300_000), 'order', clicked, 5
        FROM users WHERE has_click AND more = 5
    UNION ALL SELECT *, t0 + to_milliseconds(400_000), 'pay', clicked, 6
        FROM users WHERE has_click AND more = 5
)
SELECT substr({_ID}, 1, 8) || '-' || substr({_ID}, 9, 4) || '-7' || substr(md5(u || '/' || n), 1, 3)
        || '-8' || substr(md5(u || '/' || n), 4, 3) || '-' || substr(md5(u || '/' || n), 7, 12)
        AS event_id,
    ts + to_milliseconds(200) AS received_at, action AS action_name, ts AS "timestamp",
    'web' AS application, query_id, client_id,
    struct_pack(
        object := CASE WHEN k >= 0 THEN
            struct_pack(object_id := 'item-' || draw(u, 'i' || k, 1_000_000)) END,
        experiment := CASE WHEN action = 'exposure' THEN struct_pack(
            experiment_id := 'ei', phase := 1::INT,
            variant := CASE WHEN draw(u, 'v', 2) = 0 THEN 'control' ELSE 'treatment' END,
            is_fallback := false, is_forced := false) END,
        commerce := CASE WHEN action IN ('order', 'pay') THEN struct_pack(
            order_id := 'o' || u, amount := draw(u, 'money', 10_000) / 100.0::DOUBLE,
            currency := 'EUR') END
    ) AS event_attributes
FROM events ORDER BY ts
"""


def main() -> None:
    """Make a log if there is none, then time each step in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--step", choices=("days", "users", "effects"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    store, state = options.scratch / f"store-{options.users}", options.scratch / "state"
    if options.step:
        _step(options.step, store, state)
        return
    if not store.exists():
        _make_log(store, options.users)
    shutil.rmtree(state, ignore_errors=True)
    print("| step | wall s | CPU s | peak MiB |")
    print("|---|---:|---:|---:|")
    for step, what in (
        ("days", "fourteen days of events to totals by client and day"),
        ("users", "days to one row a user"),
        ("effects", "users to effects of three metrics"),
    ):
        command = [sys.executable, __file__, "--scratch", str(options.scratch)]
        command += ["--users", str(options.users), "--step", step]
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        print(f"| {what} | {wall:.1f} | {cpu:.1f} | {done.stdout.strip()} |", flush=True)


def _step(step: str, store: Path, state: Path) -> None:
    with open_duckdb() as connection:
        if step == "days":
            update(connection, store, state, STUDY)
        else:
            rows = user_table(connection, store, state, STUDY).rows
        if step == "effects":
            names = ("ctr", "cvr", "pay")
            arms = moments(rows, columns_of(names, has_pre=True))
            for name in names:
                ratio = METRICS[name].ratio
                compare(estimate(arms["control"], ratio), estimate(arms["treatment"], ratio))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _make_log(store: Path, users: int) -> None:
    connection = duckdb.connect()
    connection.execute("SET threads = 2; SET memory_limit = '4GB'; SET TimeZone = 'UTC'")
    connection.execute("CREATE MACRO draw(u, s, m) AS (md5_number_lower(u || s) % m)::BIGINT")
    for number in range(DAYS):
        day: date = (FIRST + timedelta(days=number)).date()
        folder = store / "events" / f"date={day}"
        folder.mkdir(parents=True)
        bounds = {"first": users * number // DAYS, "last": users * (number + 1) // DAYS}
        connection.execute(
            f"COPY ({_LOG.format(day=day, **bounds)}) TO '{folder}/part-0.parquet' "
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65_536)"
        )


if __name__ == "__main__":
    main()
