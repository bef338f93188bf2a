from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import ibis
import pytest

from abtest.at_once import user_rows_at_once
from abtest.events import open_duckdb
from tests.abtest.made_logs import random_log, write_store
from tests.abtest.slow_rules import slow_user_rows
from tests.abtest.test_events import STUDY, same


def test_rows_of_all_days_at_once_equal_those_of_the_slow_rules(tmp_path: Path) -> None:
    events, queries = random_log(11, STUDY)
    write_store(tmp_path, events, queries)
    with open_duckdb() as connection:
        found = user_rows_at_once(connection, tmp_path, tmp_path / "scratch", STUDY)
        same(connection, found, slow_user_rows(events, queries, STUDY))


def test_columns_that_are_wanted_change_no_number(tmp_path: Path) -> None:
    events, queries = random_log(12, STUDY)
    write_store(tmp_path, events, queries)
    with open_duckdb() as connection:
        everything = user_rows_at_once(connection, tmp_path, tmp_path / "all", STUDY)
        some = user_rows_at_once(
            connection, tmp_path, tmp_path / "some", STUDY, ["clicks", "amount"]
        )
        assert some.columns == ("client_id", "variant", "clicks", "amount")
        expected = everything.select(*some.columns).order_by("client_id").to_pyarrow()
        assert some.order_by("client_id").to_pyarrow().to_pylist() == expected.to_pylist()


@pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java"
)
def test_rows_on_spark_equal_those_of_the_slow_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "Spark is not there: pip install 'querylift[spark]'"
    sql = pytest.importorskip("pyspark.sql", reason=reason)
    builder = sql.SparkSession.builder.master("local[1]")
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
        same(connection, found, slow_user_rows(events, queries, STUDY))
    finally:
        session.stop()
