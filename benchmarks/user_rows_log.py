"""A log to time the analysis with, in the layout that ``events compact`` writes.

A user has a search with three results shown, one in six clicks, one in sixty orders, one in fifty
has an impression before the exposure, and one in five was there before.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

DAYS = 14
PRE_DAYS = 2
FIRST = datetime(2026, 11, 2, tzinfo=UTC)
SETTINGS = {"compression": "zstd", "compression_level": 3, "row_group_size": 64 * 1024}
"""Of the files that ``events compact`` writes."""
_USERS_A_FILE = 7_000_000
"""Of all; each day has a fourteenth of them. Bounds the memory."""
_ID = "lower(lpad(hex(epoch_ms(ts)), 12, '0'))"
_LOG = f"""
WITH users AS (
    SELECT range AS u, md5(range::VARCHAR) AS client_id,
        md5('q' || range || '{{day}}')::UUID::VARCHAR AS query_id,
        TIMESTAMPTZ '{{day}} 01:00:00+00' + to_milliseconds(draw(range, 't', 80_000_000)) AS t0,
        draw(range, 'click', 6) = 0 AS has_click, draw(range, 'which', 3) AS clicked,
        draw(range, 'more', 10) AS more, draw(range, 'early', 50) = 0 AS is_early
    FROM range({{first}}, {{last}}) WHERE {{wanted}}
), events AS (
    SELECT *, t0 AS ts, 'exposure' AS action, -1 AS k, 0 AS n FROM users WHERE {{is_exposed}}
    UNION ALL SELECT users.*, t0 + to_milliseconds(300 + k), 'impression', k, 1 + k
        FROM users, range(3) shown(k) WHERE more < 9 OR k = 0
    UNION ALL SELECT *, t0 - to_milliseconds(60_000), 'impression', 0, 7 FROM users WHERE is_early
    UNION ALL SELECT *, t0 + to_milliseconds(30_000), 'click', clicked, 4 FROM users WHERE has_click
    UNION ALL SELECT *, t0 + to_milliseconds(300_000), 'order', clicked, 5
        FROM users WHERE has_click AND more = 5
    UNION ALL SELECT *, t0 + to_milliseconds(400_000), 'pay', clicked, 6
        FROM users WHERE has_click AND more = 5
), named AS (SELECT *, {_ID} AS ms, md5(u || '/' || n || '{{day}}') AS rest FROM events)
SELECT substr(ms, 1, 8) || '-' || substr(ms, 9, 4) || '-7' || substr(rest, 1, 3)
        || '-8' || substr(rest, 4, 3) || '-' || substr(rest, 7, 12) AS event_id,
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
FROM named ORDER BY event_id
"""


def make_log(store: Path, users: int) -> None:
    """Write the events of some users."""
    import duckdb
    import pyarrow.parquet as pq

    connection = duckdb.connect()
    connection.execute("SET threads = 2; SET memory_limit = '4GB'; SET TimeZone = 'UTC'")
    connection.execute("CREATE MACRO draw(u, s, m) AS (hash(u || s) % m)::BIGINT")
    files = -(-users // _USERS_A_FILE)
    for number in range(-PRE_DAYS, DAYS):
        day: date = (FIRST + timedelta(days=number)).date()
        folder = store / "events" / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        first, last, wanted = users * number // DAYS, users * (number + 1) // DAYS, "true"
        if number < 0:
            first, last, wanted = 0, users, f"draw(range, 'before', 5 * {PRE_DAYS}) = {-number}"
        bounds = [first + (last - first) * n // files for n in range(files + 1)]
        for n in range(files):
            sql = _LOG.format(
                day=day,
                first=bounds[n],
                last=bounds[n + 1],
                wanted=wanted,
                is_exposed=str(number >= 0),
            )
            made = connection.sql(sql).to_arrow_table()
            pq.write_table(made, folder / f"part-{n}.parquet", **SETTINGS)
