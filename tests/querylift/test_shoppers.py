"""``ab shoppers``: a log on disk, and shoppers before a real splitter."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from querylift.commands.shoppers import shoppers
from relevance.data.market import MarketConfig, make_market
from relevance.errors import Finding
from serving.event_log import EventLog
from serving.log_proof import verify
from serving.log_store import Store
from serving.shipping import compact
from tests.querylift.test_splitting import address, started
from tests.serving.live import FaultyScorer, experiments, logged, served, write

NOWHERE = {"champion": "http://127.0.0.1:9", "challenger": "http://127.0.0.1:9"}


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shoppers") / "shop"
    make_market(MarketConfig(products=600, queries=20, searches=0, judgments=480), out)
    return out


def run(*options: object) -> Any:
    app = typer.Typer()
    app.command()(shoppers)
    return CliRunner().invoke(app, list(map(str, options)))


def test_a_store_is_whole_and_never_written_over(shop: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "experiments.yaml", experiments(NOWHERE))
    options = ["--experiments", file, "--data", shop, "--users", 300, "--days", 3]
    options += ["--pre-days", 1, "--effect", "click=1.2,quality=0.1", "--set", "patience=0.9"]
    store = tmp_path / "store"
    told = json.loads(run(*options, "--store", store, "--json").stdout)
    assert told["rows"]["impression"] == 10 * told["rows"]["queries"]
    assert 0 < told["rows"]["exposure"] < told["rows"]["queries"]
    assert told["true_effects"]["ctr"] > 0.1
    EventLog.open(tmp_path / "log").close()
    assert verify(tmp_path / "log", Store(str(store))) == []
    assert isinstance(run(*options, "--store", store).exception, FileExistsError)
    shown = run(*options, "--store", tmp_path / "again", "--dirty", "bots=0.01").stdout
    assert "dirty: bots" in shown
    assert "Nobody in it is real." in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "want either --store"),
        (["--store", "new", "--url", "http://a"], "want either --store"),
        (["--url", "http://a", "--dirty", "late=0.1"], "for --store"),
        (["--url", "http://a", "--effect", "quality=0.1"], "the scorers make the order"),
        (["--store", "new", "--effect", "clicks=2"], "no field 'clicks'; it has quality, click"),
        (["--store", "new", "--effect", "click=-2"], "want a factor"),
        (["--store", "new", "--dirty", "bots=2"], "want 0 to 1"),
        (["--store", "new", "--experiment", "old"], "want one of new-ranking"),
    ],
)
def test_wrong_use_is_told(shop: Path, tmp_path: Path, options: list[str], message: str) -> None:
    file = write(tmp_path / "experiments.yaml", experiments(NOWHERE))
    result = run("--experiments", file, "--data", shop, *options)
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)


def test_live_shoppers_leave_a_log_that_is_proved_whole(shop: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with served(FaultyScorer("1")) as champion, served(FaultyScorer("2")) as challenger:
        scorers = {"champion": champion, "challenger": challenger}
        file = write(tmp_path / "experiments.yaml", experiments(scorers))
        process = started(tmp_path, "--drain-s", "0", "--deadline-ms", "20000")
        try:
            options = ["--experiments", file, "--data", shop, "--users", 40]
            options += ["--url", address(process), "--searches", 60, "--json"]
            result = run(*options, "--effect", "click=1.5")
            assert result.exception is None
            told = json.loads(result.stdout)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.communicate()
    events, queries = logged(tmp_path / "log", "event"), logged(tmp_path / "log", "query")
    actions = Counter(event.action_name for event in events)
    assert (told["searches"], told["failed"], told["refused"]) == (60, 0, 0)
    assert (len(queries), actions["exposure"], actions["impression"]) == (60, 60, 600)
    assert told["events"] == len(events) - 60
    assert actions["click"] > actions["add_to_cart"] > actions["pay"]
    assert sum(told["variants"].values()) == 60
    assert set(told["variants"]) == {"new-ranking=control", "new-ranking=treatment"}
    done = compact(tmp_path / "log", store)
    assert done.records == len(events) + len(queries)
    assert done.duplicates == 0
    assert verify(tmp_path / "log", store) == []


def test_a_splitter_that_is_not_there_is_a_finding(shop: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "experiments.yaml", experiments(NOWHERE))
    options = ["--experiments", file, "--data", shop, "--searches", 3]
    result = run(*options, "--url", "http://127.0.0.1:9", "--json")
    assert isinstance(result.exception, Finding)
    assert "3 searches failed" in str(result.exception)
    assert json.loads(result.stdout)["failed"] == 3


def test_a_shop_without_judgments_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    make_market(MarketConfig(products=600, queries=20, searches=0, judgments=0), out)
    file = write(tmp_path / "experiments.yaml", experiments(NOWHERE))
    result = run("--experiments", file, "--data", out, "--store", tmp_path / "store")
    assert isinstance(result.exception, FileNotFoundError)
    assert not (tmp_path / "store").exists()
