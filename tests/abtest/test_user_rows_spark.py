from __future__ import annotations

import shutil
import sys
from pathlib import Path

import ibis
import pytest

from abtest.events import Log, naive, read_log
from abtest.user_days import day_rows, unique, user_days
from abtest.user_rows import seen_users, user_rows, without_bots
from tests.abtest.made_logs import random_log, write_store
from tests.abtest.slow_rules import slow_user_rows
from tests.abtest.test_events import STUDY, same

pytest.importorskip("pyspark")
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")


def test_rows_on_spark_equal_those_of_the_slow_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    events, queries = random_log(5, STUDY)
    write_store(tmp_path, events, queries)
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(tmp_path / "warehouse"),
    }
    builder = SparkSession.builder.master("local[1]").appName("user rows")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        connection = ibis.pyspark.connect(session)
        log = read_log(connection, tmp_path, STUDY.windows.days)
        rows = day_rows(Log(unique(log.events), log.queries), STUDY)
        days = user_days(rows, rows.filter(rows.at < naive(STUDY.windows.first)), STUDY)
        shoppers = without_bots(days, STUDY)
        found = user_rows(seen_users(shoppers.totals), shoppers, STUDY)
        same(found, slow_user_rows(events, queries, STUDY))
    finally:
        session.stop()
