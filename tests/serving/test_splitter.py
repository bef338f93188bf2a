"""The splitter between real servers: who is asked, who answers, what is logged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from abtest.assignment import Split
from abtest.experiment import load_experiments
from serving.bodies import ARROW, JSON, MSGPACK
from serving.breaker import Breaking
from serving.event_log import EventLog, Spool
from serving.privacy import hashed
from serving.shadowing import Shadowing
from serving.splitter import Routing
from serving.splitter_app import Settings, application
from tests.serving.live import KEY, FaultyScorer, eventually, experiments, logged, served, write

TREATMENT, CONTROL = {"x-client-id": "qa-treatment"}, {"x-client-id": "qa-control"}
DOCUMENTS = ["Garden Hose", "Velvet Sofa", "Velvet Cushion", "Green Sofa"]
COHERE = {"query": "velvet sofa", "documents": DOCUMENTS}
TEI = {"query": "velvet sofa", "texts": DOCUMENTS}
RELEVANCE = {"query": "velvet office", "item_ids": ["A4", "A1", "A2", "A3"]}
PATIENT, HASTY = Routing(deadline_s=20.0), Routing(deadline_s=0.6, variant_share=0.5)
"""The first for tests that no busy machine shall upset, the second where scorers hang."""
FAULTS = [
    ("hang", "timeout"),
    ("reset", "status"),
    ("500", "status"),
    ("302", "status"),
    ("404", "status"),
    ("429", "overloaded"),
    ("503", "overloaded"),
    ("not JSON", "garbage"),
    ("{}", "garbage"),
    ('{"results": []}', "garbage"),
    ('{"results": [' + ",".join(['{"index": 0, "relevance_score": 1}'] * 4) + "]}", "garbage"),
    (
        '{"results": ['
        + ",".join(f'{{"index": {i}, "relevance_score": NaN}}' for i in range(4))
        + "]}",
        "garbage",
    ),
    (
        '{"results": ['
        + ",".join(f'{{"index": {i}, "relevance_score": 1}}' for i in range(1, 5))
        + "]}",
        "garbage",
    ),
]


@dataclass(frozen=True)
class Scorers:
    """Shared by all tests of this file; servers take a while to end."""

    faulty: dict[str, FaultyScorer]
    urls: dict[str, str]


@pytest.fixture(scope="module")
def scorers() -> Iterator[Scorers]:
    faulty = {name: FaultyScorer(f"{name}-1") for name in ("champion", "challenger", "shadow")}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(served(scorer)) for name, scorer in faulty.items()}
        yield Scorers(faulty, urls)


class Shop:
    """A splitter, its scorers and a client."""

    def __init__(self, directory: Path, scorers: Scorers, **settings: Any) -> None:
        self.champion, self.challenger, self.shadow = scorers.faulty.values()
        for scorer in scorers.faulty.values():
            scorer.fault, scorer.asked = "", 0
        self.file, self.log = directory / "experiments.yaml", directory / "log"
        self.content = experiments(scorers.urls, **settings.pop("experiment", {}))
        write(self.file, self.content)
        self._settings = {
            "poll_s": 0.02,
            "routing": PATIENT,
            **settings,
        }
        self._server = ExitStack()
        self.start()

    def start(self) -> None:
        settings = Settings(self.file, self.log, KEY, **self._settings)
        log = self._server.enter_context(closing(EventLog.open(self.log, settings.spool)))
        app = application(settings, log)
        url = self._server.enter_context(served(app))
        self.client = self._server.enter_context(httpx.Client(base_url=url, timeout=30))

    def stop(self) -> None:
        self._server.close()

    def ask(self, unit: dict[str, str] | None = None, body: Any = None) -> httpx.Response:
        return self.client.post("/v2/rerank", json=body or COHERE, headers=unit or {})

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.client.get("/v1/status").json()
        return status


Open = Callable[..., Shop]


@pytest.fixture
def open_shop(tmp_path: Path, scorers: Scorers) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_(**settings: Any) -> Shop:
            shop = Shop(tmp_path, scorers, **settings)
            stack.callback(shop.stop)
            return shop

        yield open_


@pytest.fixture
def shop(open_shop: Open) -> Shop:
    return open_shop()


def order(answer: httpx.Response) -> list[int]:
    return [result["index"] for result in answer.json()["results"]]


# who answers


def test_each_unit_meets_the_scorer_of_its_variant(shop: Shop) -> None:
    split = Split.of(load_experiments(shop.file), datetime.now(UTC))
    variants = set()
    for number in range(20):
        (assignment,) = split.assign(f"shopper-{number}")
        answer = shop.ask({"x-client-id": f"shopper-{number}"})
        assert answer.headers["x-querylift-scorer"] == assignment.scorer
        assert answer.headers["x-model-version"] == f"{assignment.scorer}-1"
        assert answer.headers["x-querylift-variant"] == f"new-ranking={assignment.variant}"
        assert "x-querylift-fallback" not in answer.headers
        assert order(answer) == [1, 2, 3, 0]
        variants.add(assignment.variant)
    assert variants == {"control", "treatment"}


def test_the_unit_id_may_come_in_a_cookie_and_the_header_wins(shop: Shop) -> None:
    cookie = {"cookie": "other=1; ql_client=qa-treatment"}
    assert shop.ask(cookie).headers["x-querylift-scorer"] == "challenger"
    assert shop.ask(cookie | CONTROL).headers["x-querylift-scorer"] == "champion"


def test_no_header_chooses_a_variant(shop: Shop) -> None:
    forged = {"x-querylift-variant": "new-ranking=treatment", "x-querylift-scorer": "challenger"}
    assert shop.ask(CONTROL | forged).headers["x-querylift-scorer"] == "champion"
    passed_on = set(shop.champion.headers)
    assert not [name for name in passed_on if name.startswith(("x-querylift", "x-client", "cook"))]


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ({}, "no_unit"),
        ({"x-client-id": ""}, "no_unit"),
        ({"x-client-id": "x" * 513}, "bad_unit"),
        ({"x-client-id": b"caf\xc3\xa9"}, "bad_unit"),
        ({"x-client-id": b"\xff"}, "bad_unit"),
    ],
)
def test_a_unit_id_that_is_unusable_gets_the_champion_and_no_exposure(
    shop: Shop, unit: dict[str, Any], reason: str
) -> None:
    answer = shop.ask(unit)
    assert answer.status_code == 200
    assert answer.headers["x-querylift-scorer"] == "champion"
    assert answer.headers["x-querylift-unassigned"] == reason
    assert logged(shop.log, "event") == []
    (query,) = logged(shop.log, "query")
    assert query.client_id is None
    assert shop.status()["unassigned"] == {reason: 1}


# what passes


@pytest.mark.parametrize("body", [COHERE, TEI, COHERE | {"top_n": 2, "return_documents": True}])
def test_answers_pass_as_the_scorer_gave_them(shop: Shop, body: dict[str, Any]) -> None:
    ours = shop.ask(TREATMENT, body).json()
    direct = httpx.post(f"{shop.content['scorers']['challenger']['url']}/v2/rerank", json=body)
    theirs = direct.json()
    for answer in (ours, theirs):
        if isinstance(answer, dict):
            del answer["id"]
    assert ours == theirs


def arrow_body() -> bytes:
    table = pa.table({"item_id": pa.array(RELEVANCE["item_ids"], pa.string())})
    table = table.replace_schema_metadata({"querylift": json.dumps({"query": "velvet office"})})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def relevant(answer: httpx.Response) -> list[str]:
    media_type = answer.headers["content-type"]
    if media_type == ARROW:
        ids: list[str] = pa.ipc.open_stream(answer.content).read_all()["item_id"].to_pylist()
        return ids
    decode = msgspec.msgpack.decode if media_type == MSGPACK else msgspec.json.decode
    return [result["item_id"] for result in decode(answer.content)["results"]]


@pytest.mark.parametrize("media_type", [JSON, MSGPACK, ARROW])
@pytest.mark.parametrize("accept", [JSON, MSGPACK, ARROW])
def test_relevance_passes_and_falls_back_in_every_media_type(
    shop: Shop, media_type: str, accept: str
) -> None:
    body = {
        JSON: msgspec.json.encode(RELEVANCE),
        MSGPACK: msgspec.msgpack.encode(RELEVANCE),
        ARROW: arrow_body(),
    }[media_type]
    headers = {"content-type": media_type, "accept": accept, **TREATMENT}

    def ask() -> httpx.Response:
        return shop.client.post("/v1/relevance", content=body, headers=headers)

    answer = ask()
    assert answer.headers["x-querylift-scorer"] == "challenger"
    assert "x-querylift-fallback" not in answer.headers
    assert answer.headers["content-type"] == accept
    assert relevant(answer) == ["A1", "A2", "A3", "A4"]
    shop.champion.fault = shop.challenger.fault = "500"
    answer = ask()
    assert answer.headers["x-querylift-scorer"] == "given-order"
    assert answer.headers["content-type"] == accept
    assert relevant(answer) == RELEVANCE["item_ids"]


def test_a_compressed_body_passes(shop: Shop) -> None:
    headers = {"content-type": JSON, "content-encoding": "gzip", **TREATMENT}
    body = gzip.compress(json.dumps(COHERE).encode())
    answer = shop.client.post("/rerank", content=body, headers=headers)
    assert order(answer) == [1, 2, 3, 0]


def test_what_a_scorer_calls_wrong_passes_unchanged_and_without_exposure(shop: Shop) -> None:
    body = COHERE | {"no_such_field": 1}
    answer = shop.ask(TREATMENT, body)
    direct = httpx.post(f"{shop.content['scorers']['challenger']['url']}/v2/rerank", json=body)
    assert (answer.status_code, answer.content) == (422, direct.content)
    assert shop.champion.asked == 0
    assert logged(shop.log, "event") == logged(shop.log, "query") == []


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"{}", 422), (b'{"query": "a"}', 422), (b"[]", 422)]
)
def test_what_no_scorer_could_read_is_refused_at_the_door(
    shop: Shop, body: bytes, status: int
) -> None:
    answer = shop.client.post("/rerank", content=body, headers={"content-type": JSON})
    assert answer.status_code == status
    assert answer.json()["message"]
    assert shop.champion.asked == 0


def test_a_wrong_request_is_no_order_even_where_nobody_answers(shop: Shop) -> None:
    shop.champion.fault = shop.challenger.fault = "500"
    answer = shop.ask(TREATMENT, COHERE | {"documents": [1, 2]})
    assert answer.status_code == 422


# falling back


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_where_the_variant_fails_the_champion_answers_and_the_log_says_so(
    open_shop: Open, fault: str, reason: str
) -> None:
    shop = open_shop(routing=HASTY if fault == "hang" else PATIENT)
    shop.challenger.fault = fault
    answer = shop.ask(TREATMENT)
    assert order(answer) == [1, 2, 3, 0]
    assert answer.headers["x-querylift-scorer"] == "champion"
    assert answer.headers["x-querylift-fallback"] == reason
    assert answer.headers["x-querylift-variant"] == "new-ranking=treatment"
    (query,) = logged(shop.log, "query")
    assert query.query_attributes.scorer == "challenger"
    assert query.query_attributes.variant == "treatment"
    assert query.query_attributes.answered_by == "champion"
    assert query.query_attributes.reason == reason
    (exposed,) = logged(shop.log, "event")
    experiment = exposed.event_attributes.experiment
    assert (experiment.variant, experiment.is_fallback) == ("treatment", True)
    assert experiment.model_version == "champion-1"


@pytest.mark.parametrize("fault", ["hang", "500", "not JSON"])
@pytest.mark.parametrize("body", [COHERE, TEI, COHERE | {"top_n": 2, "return_documents": True}])
def test_where_nobody_answers_the_items_come_back_as_they_were_sent(
    open_shop: Open, fault: str, body: dict[str, Any]
) -> None:
    shop = open_shop(routing=HASTY if fault == "hang" else PATIENT)
    shop.champion.fault = shop.challenger.fault = fault
    answer = shop.ask(TREATMENT, body)
    assert answer.status_code == 200
    assert answer.headers["x-querylift-scorer"] == "given-order"
    results = answer.json() if "texts" in body else answer.json()["results"]
    count = body.get("top_n", 4)
    assert [result["index"] for result in results] == list(range(count))
    scores = [result.get("score", result.get("relevance_score")) for result in results]
    assert scores == sorted(set(scores), reverse=True)
    if body.get("return_documents"):
        assert results[1]["document"] == {"text": DOCUMENTS[1]}
    (query,) = logged(shop.log, "query")
    assert query.query_attributes.answered_by is None
    (exposed,) = logged(shop.log, "event")
    assert exposed.event_attributes.experiment.is_fallback


def test_scorers_that_are_gone_are_a_fallback(open_shop: Open) -> None:
    shop = open_shop()
    gone = {"challenger": {"url": "http://127.0.0.1:9"}}
    changed = shop.content | {"version": 2, "scorers": shop.content["scorers"] | gone}
    write(shop.file, changed)
    eventually(lambda: shop.status()["config_version"] == 2)
    answer = shop.ask(TREATMENT)
    assert answer.headers["x-querylift-fallback"] == "unreachable"
    assert answer.headers["x-querylift-scorer"] == "champion"


def test_the_breaker_opens_and_closes(open_shop: Open) -> None:
    breaking = Breaking(min_outcomes=4, first_pause_s=0.2, max_pause_s=0.2)
    shop = open_shop(breaking=breaking)
    shop.challenger.fault = "500"
    for _ in range(4):
        shop.ask(TREATMENT)
    asked = shop.challenger.asked
    answer = shop.ask(TREATMENT)
    assert answer.headers["x-querylift-fallback"] == "breaker_open"
    assert shop.challenger.asked == asked
    states = {one["scorer"]: one["breaker"] for one in shop.status()["scorers"]}
    assert (states["champion"], states["challenger"]) == ("closed", "open")
    shop.challenger.fault = ""
    eventually(lambda: shop.ask(TREATMENT).headers["x-querylift-scorer"] == "challenger")
    states = {one["scorer"]: one["breaker"] for one in shop.status()["scorers"]}
    assert states["challenger"] == "closed"


# the log


def test_an_exposure_says_which_unit_met_which_variant_of_which_file(shop: Shop) -> None:
    given = "01a1ffb1-f414-7d84-940c-b9ed32359490"
    body = COHERE | {"query": "sofa for me@example.com"}
    answer = shop.ask(TREATMENT | {"x-query-id": given}, body)
    assert answer.headers["x-query-id"] == given
    (exposed,) = logged(shop.log, "event")
    assert exposed.action_name == "exposure"
    assert exposed.query_id == given
    assert exposed.client_id == hashed("qa-treatment", KEY)
    experiment = exposed.event_attributes.experiment
    assert experiment.experiment_id == "new-ranking"
    assert (experiment.config_version, experiment.phase) == (1, 1)
    assert experiment.model_version == "challenger-1"
    assert (experiment.is_forced, experiment.is_fallback) == (True, False)
    (query,) = logged(shop.log, "query")
    assert query.user_query == "sofa for [e-mail]"
    assert query.query_response_hit_ids == tuple(map(str, order(answer)))
    assert query.query_attributes.n_items == 4
    raw = b"".join(path.read_bytes() for path in shop.log.iterdir())
    assert b"qa-treatment" not in raw
    assert b"me@example.com" not in raw


@pytest.mark.parametrize("given", ["", "not-a-uuid", "x" * 36, "{" + "1" * 34 + "}"])
def test_a_query_id_that_is_no_uuid_is_replaced(shop: Shop, given: str) -> None:
    answer = shop.ask(TREATMENT | {"x-query-id": given})
    assert answer.headers["x-query-id"] != given
    (exposed,) = logged(shop.log, "event")
    assert exposed.query_id == answer.headers["x-query-id"]


def test_a_log_that_takes_nothing_means_the_champion_without_exposure(open_shop: Open) -> None:
    shop = open_shop(spool=Spool(min_free_bytes=2**62))
    for _ in range(2):
        answer = shop.ask(TREATMENT)
        assert answer.headers["x-querylift-scorer"] == "champion"
        assert answer.headers["x-querylift-unassigned"] == "log_full"
        assert "x-querylift-variant" not in answer.headers
    # the second request knew
    assert shop.challenger.asked == 1
    status = shop.status()
    assert status["unassigned"] == {"log_full": 2}
    assert status["log"]["trouble"]
    assert logged(shop.log, "event") == []


# configuration


def test_a_new_file_is_in_force_without_a_restart_and_keeps_units_where_they_are(
    shop: Shop,
) -> None:
    units = [{"x-client-id": f"shopper-{number}"} for number in range(10)]
    before = [shop.ask(unit).headers["x-querylift-variant"] for unit in units]
    write(shop.file, shop.content | {"version": 2})
    eventually(lambda: shop.status()["config_version"] == 2)
    assert [shop.ask(unit).headers["x-querylift-variant"] for unit in units] == before
    shop.stop()
    shop.start()
    assert [shop.ask(unit).headers["x-querylift-variant"] for unit in units] == before


@pytest.mark.parametrize("fault", ["yaml", "invalid", "moves", "gone"])
def test_a_file_that_is_wrong_or_would_move_units_is_refused(shop: Shop, fault: str) -> None:
    match fault:
        case "yaml":
            shop.file.write_text("version: [", encoding="utf-8")
        case "invalid":
            write(shop.file, shop.content | {"version": 2, "champion": "nobody"})
        case "moves":
            (experiment,) = shop.content["experiments"].values()
            changed = {"new-ranking": experiment | {"salt": "another"}}
            write(shop.file, shop.content | {"version": 2, "experiments": changed})
        case "gone":
            shop.file.unlink()
    eventually(lambda: shop.status()["config_refused"])
    assert shop.ask(TREATMENT).headers["x-querylift-scorer"] == "challenger"
    assert shop.status()["config_version"] == 1
    assert "querylift_splitter_config_refused 1.0" in shop.client.get("/metrics").text
    write(shop.file, shop.content)
    eventually(lambda: not shop.status()["config_refused"])


def test_a_kill_switch_takes_everybody_out(shop: Shop) -> None:
    assert "x-querylift-variant" in shop.ask(TREATMENT).headers
    (experiment,) = shop.content["experiments"].values()
    killed = {"new-ranking": experiment | {"killed": True}}
    write(shop.file, shop.content | {"version": 2, "experiments": killed})
    eventually(lambda: shop.status()["config_version"] == 2)
    answer = shop.ask(TREATMENT)
    assert answer.headers["x-querylift-scorer"] == "champion"
    assert "x-querylift-variant" not in answer.headers


# shadows


SHADOWED = {"shadow": {"scorer": "shadow", "share": 1.0}}


def test_a_shadow_is_asked_the_same_and_both_scores_are_kept(open_shop: Open) -> None:
    shop = open_shop(experiment=SHADOWED)
    answer = shop.ask(TREATMENT, COHERE | {"top_n": 3})
    eventually(lambda: logged(shop.log, "shadow"))
    (shadow,) = logged(shop.log, "shadow")
    assert (shadow.main_scorer, shadow.shadow_scorer) == ("challenger", "shadow")
    assert shadow.query_id == answer.headers["x-query-id"]
    assert shadow.item_keys == ("1", "2", "3")
    expected = tuple(result["relevance_score"] for result in answer.json()["results"])
    assert shadow.main_scores == shadow.shadow_scores == expected
    assert shadow.failure is None
    assert shop.status()["shadows"] == {"shadow": {"ok": 1}}


@pytest.mark.parametrize(("fault", "reason"), FAULTS[:7])
def test_a_shadow_that_fails_is_counted_and_changes_nothing(
    open_shop: Open, fault: str, reason: str
) -> None:
    shop = open_shop(experiment=SHADOWED, shadowing=Shadowing(timeout_s=0.1))
    shop.shadow.fault = fault
    answer = shop.ask(TREATMENT)
    assert answer.headers["x-querylift-scorer"] == "challenger"
    eventually(lambda: logged(shop.log, "shadow"))
    (shadow,) = logged(shop.log, "shadow")
    assert shadow.failure == reason
    assert shadow.shadow_scores == ()


def test_copies_beyond_the_bound_are_dropped_and_counted(open_shop: Open) -> None:
    shop = open_shop(
        experiment=SHADOWED,
        shadowing=Shadowing(timeout_s=30, max_in_flight=2),
    )
    shop.shadow.fault = "hang"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.ask(TREATMENT), range(8)))
    assert {answer.headers["x-querylift-scorer"] for answer in answers} == {"challenger"}
    assert shop.status()["shadows"] == {"shadow": {"dropped": 6}}


# the rest


def test_the_page_runs_nothing_but_itself(shop: Shop) -> None:
    answer = shop.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "Who gets which ranking" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_status_counts_arms_and_forced_units_apart(shop: Shop) -> None:
    shop.ask(TREATMENT)
    for number in range(30):
        shop.ask({"x-client-id": f"shopper-{number}"})
        shop.ask({"x-client-id": f"shopper-{number}"})
    status = shop.status()
    assert (status["requests"], status["forced"]) == (61, 1)
    (experiment,) = status["experiments"]
    assert sum(arm["requests"] for arm in experiment["arms"]) == 60
    assert sum(arm["units"] for arm in experiment["arms"]) == 30
    assert 0 < experiment["pvalue"] <= 1


def test_metrics_can_be_read(shop: Shop) -> None:
    shop.ask(TREATMENT)
    families = {
        family.name: family
        for family in text_string_to_metric_families(shop.client.get("/metrics").text)
    }
    (sample,) = families["querylift_splitter_answered"].samples
    assert sample.labels == {"scorer": "challenger", "fallback": ""}
    assert "querylift_request_seconds" in families


def test_probes_answer(shop: Shop) -> None:
    assert shop.client.get("/livez").status_code == 200
    assert shop.client.get("/readyz").status_code == 200


def test_events_are_taken_from_allowed_origins(open_shop: Open) -> None:
    shop = open_shop(allow_origin=("https://shop.example",))
    preflight = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    answer = shop.client.options("/v1/events", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    elsewhere = shop.client.options("/v1/events", headers=preflight | {"origin": "https://x.y"})
    assert "access-control-allow-origin" not in elsewhere.headers
    event = {
        "action_name": "click",
        "timestamp": datetime.now(UTC).isoformat(),
        "event_attributes": {"position": {"ordinal": 1}, "object": {"object_id": "A1"}},
    }
    kept = shop.client.post("/v1/events", json=event, headers={"origin": "https://shop.example"})
    assert kept.json()["accepted"] == 1
    assert kept.headers["access-control-allow-origin"] == "https://shop.example"
    assert shop.status()["events_accepted"] == 1
