"""The whole chain: scorers, a splitter, shoppers, the log, and the page a product manager reads."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from abtest.result import Result, read_result
from relevance.data.market import MarketConfig, make_market
from relevance.manifest import MANIFEST
from tests.checkpoints import write_checkpoint
from tests.serving.live import KEY, experiments, write
from tests.serving.test_scorer import COMMAND, ROOT, Server, wait_for

SEARCHES = 400
READY_S = 240.0
"""For two scorers that load at once on a busy machine."""
NAME = "new-ranking-phase-1"


def querylift(*arguments: object) -> str:
    """Run a command, and give what it printed."""
    command = [sys.executable, "-m", "querylift", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Lived:
    """An experiment that was run, and its report."""

    def __init__(self, home: Path, models: dict[str, Path]) -> None:
        self.home = home
        self.page = home / "reports" / f"{NAME}.html"
        self.versions = {
            variant: hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()[:16]
            for variant, model in models.items()
        }

    @property
    def result(self) -> Result:
        """That the page shows."""
        return read_result(self.page.with_suffix(".json"))


@pytest.fixture(scope="module")
def lived(vocabulary: Path, clicked_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    home = tmp_path_factory.mktemp("lived")
    kinds = {"champion": "bert", "challenger": "ei_src"}
    for name, kind in kinds.items():
        write_checkpoint(kind, home / name, vocabulary, clicked_data)
    make_market(MarketConfig(products=600, queries=20, searches=0, judgments=480), home / "shop")
    with contextlib.ExitStack() as stack:
        scorers = {}
        for name in kinds:
            serve = ("serve", "scorer", "--model", home / name, "--port", 0)
            scorers[name] = Server(COMMAND, *serve, home=home)
            stack.callback(scorers[name].process.kill)
        for scorer in scorers.values():
            wait_for(lambda it=scorer: it.get("/readyz").status_code == 200, scorer, READY_S)
        content = experiments(
            {name: scorer.url for name, scorer in scorers.items()},
            start=datetime.now(UTC) - timedelta(days=8),
            primary=["ctr", "pay"],
            guardrails={"impressions_per_user": {"margin": 0.9}},
            decision={"min_users": 50},
        )
        file = write(home / "experiments.yaml", content)
        (home / "key").write_bytes(KEY)
        split = ("--experiments", file, "--log", home / "log", "--id-key-file", home / "key")
        often = ("--port", 0, "--drain-s", 0, "--deadline-ms", 20_000)
        splitter = Server(COMMAND, "serve", "splitter", *split, *often, home=home)
        stack.callback(splitter.process.kill)
        querylift(
            *("ab", "shoppers", "--experiments", file, "--data", home / "shop", "--users", 250),
            *("--url", splitter.url, "--searches", SEARCHES, "--effect", "click=3"),
        )
        splitter.process.send_signal(signal.SIGTERM)
        assert splitter.end() == 0
    # the experiment is ended, so that today is among its days
    (experiment,) = content["experiments"].values()
    experiment["end"] = datetime.now(UTC)
    write(file, content | {"version": 2})
    querylift("events", "compact", "--log", home / "log", "--store", home / "store")
    querylift(
        *("ab", "report", "--experiment", file, "--events", home / "store"),
        *("--out", home / "reports", "--fixed"),
    )
    return Lived(home, {"control": home / "champion", "treatment": home / "challenger"})


@pytest.fixture
def shown(lived: Lived, chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda it: asked.append(it.url))
    page.goto(lived.page.as_uri())
    yield page
    context.close()
    assert {url for url in asked if not url.startswith("data:")} == {lived.page.as_uri()}


def test_the_page_says_what_to_do_and_why_it_may_be_believed(lived: Lived, shown: Any) -> None:
    verdict = lived.result.verdict
    assert verdict is not None
    assert (verdict.decision, verdict.variant) == ("ship", "treatment")
    assert shown.locator(".verdict .say").inner_text() == verdict.sentence
    assert verdict.sentence.startswith("Ship treatment: ctr rose by")
    lights = shown.locator(".gates li .light").all_inner_texts()
    checks = ("Sample ratio", "Users of several variants", "Days", "Freshness", "Currency")
    assert {f"{check}: fine" for check in checks} <= set(lights)
    assert not [text for text in lights if "stops" in text]


def test_every_search_is_in_the_log_and_every_event_is_accounted_for(
    lived: Lived, shown: Any
) -> None:
    result = lived.result
    counts = {it.step: it.count for it in result.funnel if it.unit == "events"}
    read, kept = counts.pop("read"), counts.pop("kept")
    assert read == kept + sum(counts.values())
    assert kept > 10 * SEARCHES
    table = shown.get_by_role("table", name="From the event log to the users above")
    for it in result.funnel:
        assert f"{it.count:,}" in table.inner_text()
    users = shown.get_by_role("table", name="Users of each variant").inner_text()
    for variant, count in result.sample_ratio.counts.items():
        assert f"{variant}\t{count}" in users


def test_each_metric_has_a_row_with_its_unit(shown: Any) -> None:
    rows = shown.locator(".results tbody tr:not(.family)").all_inner_texts()
    (ctr,) = [row for row in rows if row.startswith("ctr\n")]
    (pay,) = [row for row in rows if row.startswith("pay\n")]
    assert ctr.rstrip().endswith("better")
    assert "clicks per impression; higher is better" in ctr
    assert "percentage points" in ctr
    assert "EUR per user" in pay


def test_the_page_says_what_it_was_made_of(lived: Lived, shown: Any) -> None:
    made = lived.result.provenance
    said = shown.get_by_role("region", name="Where this is from").inner_text()
    assert made.command in said
    assert f"ab report --experiment {lived.home / 'experiments.yaml'}" in made.command
    file = (lived.home / "experiments.yaml").read_bytes()
    assert made.config_sha256 == hashlib.sha256(file).hexdigest()
    assert made.config_sha256 in said
    assert made.data_sha256 in said
    for variant, version in lived.versions.items():
        assert set(made.model_versions[variant]) == {version}
        assert f"Models of {variant}\n{version}: " in said


def test_the_json_beside_it_is_what_the_schema_says(lived: Lived) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = msgspec.json.decode(querylift("ab", "schema", "--of", "result"))
    told = msgspec.json.decode(lived.page.with_suffix(".json").read_bytes())
    jsonschema.validate(told, schema)
    assert told["rule"]["min_users"] == 50
