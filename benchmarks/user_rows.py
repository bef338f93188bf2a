"""Events to effects: ours, and tea-tasting and pandas from the same files.

Run ``python benchmarks/user_rows.py --scratch DIR`` (``--users 5_000_000`` makes 23 M events, the
default); prints a markdown table. Every row is a process of its own, from the start of Python to
the result: CTR, with that of two days before as its covariate, CVR and PAY. The log is
made once, by ``benchmarks/user_rows_log.py``, and proven as ``events verify`` does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from user_rows_log import DAYS, FIRST, PRE_DAYS, make_log

COLUMNS = ["impressions", "clicks", "attributed_orders", "amount", "pre_impressions", "pre_clicks"]


def main() -> None:
    """Make the log and the state of all days but the last, then time each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--prepare", action="store_true", help="make the files, time nothing")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    scratch = options.scratch / str(options.users)
    if options.row:
        print(ROWS[options.row][1](scratch))
        return
    if options.prepare:
        _prepare(scratch, options.users)
        return
    # in a process of its own: a child's peak is not below its parent's
    own = [sys.executable, __file__, "--scratch", str(options.scratch)]
    own += ["--users", str(options.users)]
    if not (scratch / "state").exists():
        subprocess.run([*own, "--prepare"], check=True)
    # the row that adds a day changes it
    shutil.rmtree(scratch / "state-now", ignore_errors=True)
    shutil.copytree(scratch / "state", scratch / "state-now")
    print("| | from | wall s | CPU s | peak MiB | CTR |")
    print("|---|---|---:|---:|---:|---:|")
    for row, (source, _) in ROWS.items():
        command = [*own, "--row", row]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = process.stdout.read().strip()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
        peak = used.ru_maxrss // 1024
        said = said if process.returncode == 0 else "failed"
        print(f"| {row} | {source} | {wall:.1f} | {cpu:.1f} | {peak:,} | {said} |", flush=True)


def ours_from_users(scratch: Path) -> str:
    """Effects from user rows that are on disk."""
    from abtest.events import open_duckdb

    with open_duckdb() as connection:
        return _effects(connection.read_parquet(str(scratch / "users.parquet")))


def ours_from_log(scratch: Path) -> str:
    """All rules, all days at once."""
    from abtest.at_once import user_rows_at_once
    from abtest.events import open_duckdb

    with open_duckdb() as connection, tempfile.TemporaryDirectory(dir=scratch) as between:
        rows = user_rows_at_once(
            connection,
            scratch / "store",
            Path(between) / "between",
            _study(),
            COLUMNS,
        )
        return _effects(rows)


def ours_next_day(scratch: Path) -> str:
    """All rules, when the state lacks the last day."""
    from abtest.events import open_duckdb
    from abtest.user_table import user_table

    with open_duckdb() as connection:
        users = user_table(connection, scratch / "store", scratch / "state-now", _study())
        return _effects(users.rows)


def tea_tasting_from_users(scratch: Path) -> str:
    """The user rows of ours, by DuckDB through Ibis."""
    import ibis

    connection = ibis.duckdb.connect(threads=2)
    return _tea_tasting(connection.read_parquet(str(scratch / "users.parquet")))


def tea_tasting_from_log(scratch: Path) -> str:
    """A plain group-by, no rule applied."""
    import ibis

    connection = ibis.duckdb.connect(threads=2)
    log = connection.read_parquet(str(scratch / "store/events/date=*/*.parquet"))
    inside, start = log.event_attributes, ibis.timestamp(FIRST)
    log = log.select(
        "client_id",
        "action_name",
        is_pre=log.timestamp < start,
        variant=inside.experiment.variant,
        amount=inside.commerce.amount,
    )
    counted = {"impressions": "impression", "clicks": "click", "attributed_orders": "order"}
    sums = {}
    for prefix, is_its in (("", ~log.is_pre), ("pre_", log.is_pre)):
        for name, action in counted.items():
            sums[f"{prefix}{name}"] = log.count(where=is_its & (log.action_name == action))
        is_paid = is_its & (log.action_name == "pay")
        sums[f"{prefix}amount"] = log.amount.sum(where=is_paid).fill_null(0)
    users = log.group_by("client_id").aggregate(variant=log.variant.max(), **sums)
    return _tea_tasting(users.filter(users.variant.notnull()))


def pandas_from_users(scratch: Path) -> str:
    """The user rows of ours."""
    import pandas as pd

    return _pandas(pd.read_parquet(scratch / "users.parquet", columns=["variant", *COLUMNS]))


def pandas_from_log(scratch: Path) -> str:
    """A plain group-by, no rule applied."""
    import pandas as pd
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    files = sorted((scratch / "store/events").glob("date=*/*.parquet"))
    names = ["client_id", "action_name", "timestamp", "variant", "amount"]
    days = []
    for file in files:
        found = pq.ParquetFile(file).read(["client_id", "action_name", "timestamp"])
        inside = pq.ParquetFile(file).read(["event_attributes"])["event_attributes"]
        for path in (["experiment", "variant"], ["commerce", "amount"]):
            found = found.append_column(path[-1], pc.struct_field(inside, path))
        days.append(found.select(names).to_pandas())
    log = pd.concat(days, ignore_index=True)
    variant = log.dropna(subset="variant").drop_duplicates("client_id")
    users = variant.set_index("client_id")[["variant"]]
    is_pre = log.timestamp < FIRST
    counted = {"impressions": "impression", "clicks": "click", "attributed_orders": "order"}
    for prefix, part in (("", log[~is_pre]), ("pre_", log[is_pre])):
        for name, action in counted.items():
            found = part.client_id[part.action_name == action].value_counts()
            users[f"{prefix}{name}"] = found
        paid = part[part.action_name == "pay"]
        users[f"{prefix}amount"] = paid.groupby("client_id").amount.sum()
    return _pandas(users.fillna({name: 0 for name in users if name != "variant"}))


ROWS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "ours": ("user rows", ours_from_users),
    "tea-tasting": ("user rows", tea_tasting_from_users),
    "pandas, scipy": ("user rows", pandas_from_users),
    "ours, 13 rules": ("log", ours_from_log),
    "tea-tasting, no rules": ("log", tea_tasting_from_log),
    "ours, 13 rules, next day": ("state and log of the last day", ours_next_day),
    "pandas, scipy, no rules": ("log", pandas_from_log),
}


def _study() -> Any:
    from abtest.events import Study, Windows

    return Study("ei", 1, Windows(FIRST, FIRST + timedelta(days=DAYS), pre_days=PRE_DAYS))


def _effects(rows: Any) -> str:
    from abtest.cuped import cuped
    from abtest.metrics import METRICS
    from abtest.moments import moments
    from abtest.stats import Ratio, compare, estimate

    arms = list(moments(rows, COLUMNS).values())
    control, treatment = cuped(
        arms, METRICS["ctr"].ratio, [Ratio("pre_clicks", "pre_impressions")]
    ).estimates
    for name in ("cvr", "pay"):
        before, after = (estimate(arm, METRICS[name].ratio) for arm in arms)
        compare(before, after)
    return _said(sum(arm.count for arm in arms), compare(control, treatment).rel_effect)


def _tea_tasting(users: Any) -> str:
    import tea_tasting as tt

    made = tt.Experiment(
        ctr=tt.RatioOfMeans("clicks", "impressions", "pre_clicks", "pre_impressions"),
        cvr=tt.RatioOfMeans("attributed_orders", "clicks"),
        pay=tt.Mean("amount"),
        count=tt.SampleRatio(),
    )
    result = made.analyze(users, control="control")
    count: Any = result["count"]
    return _said(count.control + count.treatment, result["ctr"].rel_effect_size)


def _pandas(users: Any) -> str:
    import numpy as np
    from scipy import stats

    arms = [users[users.variant == name] for name in ("control", "treatment")]
    # linearised, as the delta method is; θ of the covariate is of both arms
    parts = []
    for top, bottom in (("clicks", "impressions"), ("pre_clicks", "pre_impressions")):
        ratio = users[top].sum() / users[bottom].sum()
        parts.append((users[top] - ratio * users[bottom]) / users[bottom].mean())
    among = np.cov(*parts)
    pull = parts[0] - among[0, 1] / among[1, 1] * parts[1]
    adjusted = [pull[users.variant == name] for name in ("control", "treatment")]
    stats.ttest_ind(*adjusted, equal_var=False)
    stats.ttest_ind(*(arm.amount for arm in arms), equal_var=False)
    rate = users.attributed_orders.sum() / users.clicks.sum()
    stats.ttest_ind(*(arm.attributed_orders - rate * arm.clicks for arm in arms), equal_var=False)
    ctr = users.clicks.sum() / users.impressions.sum()
    return _said(len(users), (adjusted[1].mean() - adjusted[0].mean()) / ctr)


def _said(users: int, effect: float) -> str:
    return f"{users:,} users, {effect:+.3%}"


def _prepare(scratch: Path, users: int) -> None:
    """The log, user rows of it, and the state of all days but the last.

    The state bounds the memory, however many users there are.
    """
    from abtest.events import open_duckdb
    from abtest.user_table import user_table
    from serving.log_proof import prove_distinct
    from serving.log_store import Store

    store, state = scratch / "store", scratch / "state"
    if not store.exists():
        make_log(scratch / "partial", users)
        prove_distinct(Store(str(scratch / "partial")))
        (scratch / "partial").rename(store)
    shutil.rmtree(state, ignore_errors=True)
    with open_duckdb() as connection:
        if not (scratch / "users.parquet").exists():
            rows = user_table(connection, store, state, _study()).rows
            rows = rows.select("client_id", "variant", *COLUMNS)
            connection.to_parquet(rows, str(scratch / "users.parquet"))
        last = store / f"events/date={FIRST.date() + timedelta(days=DAYS - 1)}"
        last.rename(scratch / "last")
        try:
            user_table(connection, store, state, _study())
        finally:
            (scratch / "last").rename(last)


if __name__ == "__main__":
    main()
