from __future__ import annotations

import shutil
import sys
from pathlib import Path

import ibis
import pytest

from abtest.events import open_duckdb
from abtest.user_table import user_rows_at_once
from tests.abtest.made_logs import random_log, write_store
from tests.abtest.slow_rules import slow_user_rows
from tests.abtest.test_events import STUDY, same


def test_rows_of_all_days_at_once_equal_those_of_the_slow_rules(tmp_path: Path) -> None:
    events, queries = random_log(11, STUDY)
    write_store(tmp_path, events, queries)
    with open_duckdb() as connection:
        found = user_rows_at_once(connection, tmp_path, tmp_path / "scratch", STUDY)
        same(found, slow_user_rows(events, queries, STUDY))


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_rows_on_spark_equal_those_of_the_slow_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = pytest.importorskip("pyspark.sql").SparkSession.builder.master("local[1]")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    events, queries = random_log(5, STUDY)
    write_store(tmp_path, events, queries)
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(tmp_path / "warehouse"),
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        connection = ibis.pyspark.connect(session)
        found = user_rows_at_once(connection, tmp_path, tmp_path / "scratch", STUDY)
        same(found, slow_user_rows(events, queries, STUDY))
    finally:
        session.stop()
