from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from msgspec import convert, json

from abtest.aggregates import Aggregates
from abtest.assignment import Split
from abtest.event_door import Door, Refused, decode_events
from abtest.events import Study, Windows, open_duckdb
from abtest.experiment import Experiments
from abtest.record_tables import schema_of
from abtest.records import Event, Query, uuid7_time
from abtest.shop import PAGE, Shop
from abtest.shopper_log import ShopperLog
from abtest.shopper_plan import Dirt, Simulation, searches_of
from abtest.shoppers import CLICK, ORDER, PAY, Effect, Shoppers, expected, react, true_effects
from abtest.stats import Ratio, compare, estimate
from abtest.user_table import user_table
from tests.abtest.made_logs import experiments_content

BEGIN = datetime(2026, 11, 2, tzinfo=UTC)
SHOPPERS = Shoppers(searches_a_day=0.2)


def a_shop(grades: Callable[[Any], Any] = lambda rng: rng.integers(4, size=(40, 24))) -> Shop:
    drawn = grades(np.random.default_rng(5))
    query, place = np.nonzero(drawn >= 0)
    count = len(query)
    return Shop.of(
        [f"query {number}" for number in range(len(drawn))],
        1.0 + np.arange(len(drawn)),
        [f"item-{number}" for number in range(count)],
        [f"Title {number}" for number in range(count)],
        (query, np.arange(count), drawn[query, place]),
    )


def an_experiment(**changes: Any) -> Experiments:
    given = {"phase": 2, "primary": ["ctr"], **changes}
    return convert(experiments_content("new", BEGIN, 60, **given), Experiments)


def simulation(**changes: Any) -> Simulation:
    settings = {"experiments": an_experiment(), "days": 6, "users": 1_500, "habits": SHOPPERS}
    return Simulation(**{"experiment_id": "new", "begin": BEGIN, **settings, **changes})


SHOP = a_shop()


def written(**changes: Any) -> tuple[pa.Table, pa.Table, Counter[str]]:
    """Events, queries, and what was planted."""
    log = ShopperLog(simulation(**changes), SHOP)
    files = list(log.files())
    tables = (
        pa.concat_tables([file.rows for file in files if file.table == name])
        for name in ("events", "queries")
    )
    return (*tables, log.planted)


def flat(events: pa.Table) -> pa.Table:
    attributes = events["event_attributes"].combine_chunks()
    columns = {
        "item": pc.struct_field(attributes, ["object", "object_id"]),
        "place": pc.struct_field(attributes, ["position", "ordinal"]),
        "variant": pc.struct_field(attributes, ["experiment", "variant"]),
        "order_id": pc.struct_field(attributes, ["commerce", "order_id"]),
        "amount": pc.struct_field(attributes, ["commerce", "amount"]),
    }
    for name, column in columns.items():
        events = events.append_column(name, column)
    return events.drop_columns(["event_attributes"])


def counts(events: pa.Table) -> Counter[str]:
    return Counter(events["action_name"].to_pylist())


def keys(events: pa.Table, action: str) -> set[tuple[str, str]]:
    rows = flat(events.filter(pc.equal(events["action_name"], action)))
    return set(zip(rows["query_id"].to_pylist(), rows["item"].to_pylist(), strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    def content(seed: int) -> list[bytes]:
        parts = []
        dirt = Dirt(duplicates=0.01, late=0.01, bots=0.001, crossovers=0.1, unexposed=0.1)
        for file in ShopperLog(simulation(users=200, seed=seed, dirt=dirt), SHOP).files():
            buffer = io.BytesIO()
            pq.write_table(file.rows, buffer)
            parts.append(buffer.getvalue())
        return parts

    assert content(1) == content(1)
    assert not set(content(1)) & set(content(2))


def test_files_are_those_of_the_store() -> None:
    dirt = Dirt(refunds=0.5, late=0.1)
    for file in ShopperLog(simulation(dirt=dirt), SHOP).files():
        struct, id_field = (Event, "event_id") if file.table == "events" else (Query, "request_id")
        file.rows.validate(full=True)
        assert file.rows.schema == schema_of(struct)
        ids = file.rows[id_field].to_pylist()
        assert ids == sorted(set(ids))
        times = [uuid7_time(UUID(one)) for one in ids]
        assert times == file.rows["timestamp"].to_pylist()
        assert {time.date().isoformat() for time in times} == {file.date}


def test_every_event_is_one_that_the_collector_lets_in() -> None:
    events, _, _ = written(users=100, dirt=Dirt(refunds=0.2, bots=0.01))

    def without_nulls(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {n: without_nulls(one) for n, one in value.items() if one is not None}

    sent = [without_nulls(row) for row in events.drop_columns(["received_at"]).to_pylist()]
    door = Door(max_events=len(sent), max_age=timedelta(days=100))
    let_in = decode_events(json.encode(sent), BEGIN + timedelta(days=9), door)
    assert [one for one in let_in if isinstance(one, Refused)] == []
    assert set(counts(events)) == {
        "impression", "click", "add_to_cart", "contact_supplier", "order", "pay", "refund",
        "exposure",
    }  # fmt: skip


def test_each_depth_has_the_one_before_it() -> None:
    events, queries, _ = written()
    shown, clicks, carts, contacts, orders, pays = (
        keys(events, action)
        for action in (
            "impression", "click", "add_to_cart", "contact_supplier", "order", "pay",
        )
    )  # fmt: skip
    assert pays < orders < carts < clicks < shown
    assert contacts < clicks
    assert len(shown) == PAGE * len(queries) == counts(events)["impression"]
    rows = flat(events)
    money = {
        action: dict(zip(of["order_id"].to_pylist(), of["amount"].to_pylist(), strict=True))
        for action in ("order", "pay")
        for of in [rows.filter(pc.equal(rows["action_name"], action))]
    }
    assert len(money["order"]) == len(orders)
    assert money["pay"].items() <= money["order"].items()


def test_a_page_has_what_its_query_says_was_shown() -> None:
    events, queries, _ = written(users=200)
    rows = flat(events.filter(pc.equal(events["action_name"], "impression")))
    shown: dict[str, dict[int, str]] = {}
    for query_id, place, item in zip(
        *(rows[name].to_pylist() for name in ("query_id", "place", "item")), strict=True
    ):
        shown.setdefault(query_id, {})[place] = item
    for row in queries.to_pylist():
        page = shown[row["query_id"]]
        assert [page[place] for place in range(1, PAGE + 1)] == row["query_response_hit_ids"]


def test_shoppers_look_down_the_page_as_the_cascade_says() -> None:
    habits = Shoppers(patience=(0.6, 0.9), after_click=0.5, accidents=0.0)
    pages, rng = 60_000, np.random.default_rng(0)
    patience = rng.choice(habits.patience, pages)
    grades = np.full((pages, PAGE), 2)
    deeds = react(grades, patience, np.zeros(pages, bool), habits, Effect(), rng)
    found = np.bincount(deeds.place[deeds.action == CLICK], minlength=PAGE) / pages
    chance = habits.click[2]
    goes_on = [chance * 0.5 + (1 - chance) * gamma for gamma in habits.patience]
    wanted = np.array([np.mean([g**rank for g in goes_on]) for rank in range(PAGE)]) * chance
    assert np.abs(found - wanted).max() < 4.5 * np.sqrt(chance / pages)
    assert (np.abs(found / wanted - 1) < 0.2).all()


@pytest.mark.parametrize(
    "effect", [Effect(), Effect(quality=0.4), Effect(click=1.5, order=1.3, amount=1.2)]
)
def test_what_is_expected_is_what_comes_on_average(effect: Effect) -> None:
    searches, rng = 80_000, np.random.default_rng(0)
    query = rng.choice(len(SHOP.popularity), searches, p=SHOP.popularity)
    page = SHOP.pages(SHOPPERS.quality + effect.quality)[query]
    grades = np.take_along_axis(SHOP.grades[query], page, axis=1)
    prices = SHOP.prices[np.take_along_axis(SHOP.pools[query], page, axis=1)]
    patience = rng.choice(SHOPPERS.patience, searches)
    deeds = react(grades, patience, np.ones(searches, bool), SHOPPERS, effect, rng)
    wanted = expected(SHOP, SHOPPERS, effect)
    for action, mean in ((CLICK, wanted.clicks), (ORDER, wanted.orders)):
        per_search = np.bincount(deeds.row[deeds.action == action], minlength=searches)
        assert abs(per_search.mean() - mean) < 4 * per_search.std() / np.sqrt(searches)
    pay = deeds.take(deeds.action == PAY)
    paid = effect.amount * np.bincount(pay.row, prices[pay.row, pay.place], searches)
    assert abs(paid.mean() - wanted.paid) < 4 * paid.std() / np.sqrt(searches)


def test_without_an_effect_nothing_is_expected_and_nothing_differs() -> None:
    assert set(true_effects(SHOP, SHOPPERS, Effect()).values()) == {0.0}
    events, _, _ = written()
    alone, _, _ = written(experiments=an_experiment(killed=True))
    assert counts(events)["exposure"] > 0 == counts(alone)["exposure"]
    seen = events.filter(pc.not_equal(events["action_name"], "exposure"))
    for action in ("click", "pay"):
        assert keys(seen, action) == keys(alone, action)


@pytest.mark.parametrize(
    ("effect", "metrics"),
    [
        (Effect(quality=0.3), {"ctr", "orders_per_impression", "pay"}),
        (Effect(click=1.1), {"ctr", "orders_per_impression", "pay"}),
        (Effect(order=1.1), {"cvr", "orders_per_impression", "pay"}),
        (Effect(amount=1.1), {"pay"}),
    ],
)
def test_an_effect_is_on_the_metrics_that_it_is_about(effect: Effect, metrics: set[str]) -> None:
    effects = true_effects(SHOP, SHOPPERS, effect)
    assert metrics <= {name for name, value in effects.items() if value > 0.01}
    if not effect.quality:
        assert {name for name, value in effects.items() if abs(value) > 0.01} == metrics


def test_only_treated_shoppers_have_the_effect() -> None:
    plain, _, _ = written()
    rows, _, _ = written(effect=Effect(amount=2.0))
    flats = [flat(table.filter(pc.equal(table["action_name"], "pay"))) for table in (plain, rows)]
    met = flat(plain)
    treated = set(met.filter(pc.equal(met["variant"], "treatment"))["client_id"].to_pylist())
    pairs = zip(
        flats[0]["client_id"].to_pylist(),
        flats[0]["amount"].to_pylist(),
        flats[1]["amount"].to_pylist(),
        strict=True,
    )
    for client_id, before, after in pairs:
        assert after == pytest.approx((1 + (client_id in treated)) * before, abs=0.011)


def test_all_users_come_fewer_new_ones_day_by_day_and_many_again() -> None:
    days, users = 14, 4_000
    searches = searches_of(simulation(days=days, users=users), SHOP)
    assert np.array_equal(np.unique(searches.shopper), np.arange(users))
    day = (searches.time_ms - searches.time_ms.min()) // 86_400_000
    first = np.unique(searches.shopper, return_index=True)[1]
    new = np.bincount(day[first], minlength=days)
    assert new[:4].sum() > 1.3 * new[-4:].sum()
    again = np.unique(searches.shopper[day > day[first][searches.shopper]])
    assert 0.2 < len(again) / users < 0.9
    per_user = np.bincount(searches.shopper)
    assert per_user.var() > 1.5 * per_user.mean()


def test_exposures_are_what_a_splitter_would_assign() -> None:
    ramp = [{"at": BEGIN + timedelta(days=4), "range": [0, 8_000]}]
    start = BEGIN + timedelta(days=2)
    experiments = an_experiment(range=[0, 3_000], ramp=ramp, start=start)
    log = ShopperLog(simulation(experiments=experiments, users=300), SHOP)
    events = pa.concat_tables([file.rows for file in log.files() if file.table == "events"])
    exposures = events.filter(pc.equal(events["action_name"], "exposure"))
    wanted = []
    for number, shopper in enumerate(log.searches.shopper.tolist()):
        at = datetime.fromtimestamp(log.searches.time_ms[number] / 1_000, UTC)
        for one in Split.of(experiments, at).assign(f"shopper-0-{shopper}"):
            wanted.append((at, one.variant, one.bucket))
    found = [
        (row["timestamp"], experiment["variant"], experiment["bucket"])
        for row in exposures.to_pylist()
        for experiment in [row["event_attributes"]["experiment"]]
    ]
    assert sorted(found) == sorted(wanted)
    assert min(found)[0] >= start


def test_dirt_is_planted_as_often_as_it_says() -> None:
    dirt = Dirt(
        duplicates=0.02, late=0.03, second_clicks=0.1, refunds=0.2,
        bots=0.002, crossovers=0.1, unexposed=0.2,
    )  # fmt: skip
    events, _, planted = written(dirt=dirt)
    assert len(events) - len(pc.unique(events["event_id"])) == planted["duplicates"]
    once = events.group_by("event_id", use_threads=False).aggregate([("received_at", "min")])
    end = BEGIN + timedelta(days=6)
    late = pc.greater(once["received_at_min"], pa.scalar(end + timedelta(days=3)))
    assert pc.sum(late).as_py() == planted["late"]
    rows = flat(events).group_by(
        ["event_id", "action_name", "client_id", "query_id", "item", "variant", "timestamp"],
        use_threads=False,
    )
    rows = rows.aggregate([])
    clicks = rows.filter(pc.equal(rows["action_name"], "click"))
    assert len(clicks) - len(keys(events, "click")) == planted["second_clicks"]
    assert len(keys(events, "refund")) == planted["refunds"] > 0
    met = rows.filter(pc.equal(rows["action_name"], "exposure"))
    variants = met.group_by("client_id").aggregate([("variant", "count_distinct")])
    crossed = pc.equal(variants["variant_count_distinct"], 2)
    assert pc.sum(crossed).as_py() == planted["crossovers"] > 0
    first = met.group_by("client_id").aggregate([("timestamp", "min")])
    since = dict(zip(*(first[n].to_pylist() for n in ("client_id", "timestamp_min")), strict=True))
    early = {
        client_id
        for client_id, at in zip(
            *(rows[n].to_pylist() for n in ("client_id", "timestamp")), strict=True
        )
        if at < since[client_id]
    }
    assert len(early) == planted["unexposed"] > planted["crossovers"]
    minutes = Counter(
        zip(
            rows["client_id"].to_pylist(),
            pc.floor_temporal(rows["timestamp"], unit="minute").to_pylist(),
            strict=True,
        )
    )
    bots = {client_id for (client_id, _), count in minutes.items() if count > 1_000}
    assert len(bots) == planted["bots"] == 3


def test_the_analysis_finds_the_dirt_and_the_effect(tmp_path: Path) -> None:
    effect = Effect(click=1.5)
    dirt = Dirt(duplicates=0.02, bots=0.002, crossovers=0.05, unexposed=0.1)
    log = ShopperLog(simulation(days=3, users=4_000, effect=effect, dirt=dirt), SHOP)
    for file in log.files():
        folder = tmp_path / file.table / f"date={file.date}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(file.rows, folder / f"part-{file.number}.parquet")
    study = Study("new", 2, Windows(BEGIN, BEGIN + timedelta(days=4)))
    with open_duckdb() as connection:
        found = user_table(connection, tmp_path, tmp_path / "state", study)
        seen, rows = found.funnel, found.rows.to_pyarrow()
    assert seen.users["bots"] == log.planted["bots"] == 8
    assert seen.users["exposed"] == 4_000
    assert seen.users["crossover"] == log.planted["crossovers"] > 0
    assert seen.rows["duplicate"] == log.planted["duplicates"]
    assert seen.rows["before_exposure"] > PAGE * log.planted["unexposed"]
    arms = {
        variant: Aggregates.from_arrays(
            {name: arm[name].to_numpy() for name in ("clicks", "impressions")}
        )
        for variant in ("control", "treatment")
        for arm in [rows.filter(pc.equal(rows["variant"], variant))]
    }
    ctr = Ratio("clicks", "impressions")
    found_effect = compare(
        *(estimate(arms[variant], ctr) for variant in ("control", "treatment")), alpha=1e-4
    )
    true_effect = true_effects(SHOP, SHOPPERS, effect)["ctr"]
    assert found_effect.rel_ci_low < true_effect < found_effect.rel_ci_high
    assert found_effect.rel_ci_low > 0.2


def test_a_clean_log_has_no_dirt() -> None:
    events, _, planted = written(users=300)
    assert not any(planted.values())
    assert len(pc.unique(events["event_id"])) == len(events)
    assert counts(events)["refund"] == 0


def test_queries_without_a_page_of_judgments_are_left_out() -> None:
    def grades(rng: np.random.Generator) -> Any:
        drawn = rng.integers(4, size=(5, 12))
        drawn[0, PAGE - 1 :] = -1
        drawn[1, PAGE:] = -1
        return drawn

    shop = a_shop(grades)
    assert shop.queries.to_pylist() == ["query 1", "query 2", "query 3", "query 4"]
    shown = np.take_along_axis(shop.pools, shop.pages(0.5), axis=1)
    assert (shown >= 0).all()


def test_a_better_order_shows_better_items_first() -> None:
    grades = [np.take_along_axis(SHOP.grades, SHOP.pages(q), axis=1) for q in (0.0, 0.5, 1.0)]
    assert grades[0].mean() < grades[1].mean() < grades[2].mean()
    assert (np.diff(grades[2], axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulation(experiment_id="old"), "no experiment 'old'; the file has new"),
        (lambda: simulation(begin=datetime(2026, 11, 2)), "has no zone"),
        (lambda: simulation(users=0), "users: 0; want 1 or more"),
        (lambda: Dirt(late=1.1), "late: 1.1; want 0 to 1"),
        (lambda: Dirt(crossovers=0.6, unexposed=0.6), "nobody is both"),
        (lambda: Effect(click=-1), "click: -1; want a factor"),
        (lambda: Effect(amount=float("nan")), "amount: nan"),
        (lambda: Shoppers(click=(0.1,)), "one a grade"),
        (lambda: Shoppers(patience=()), "patience: .*want chances"),
        (lambda: Shoppers(activity=0), "activity: 0; want more than 0"),
        (lambda: a_shop(lambda rng: rng.integers(4, size=(3, 9))), "no query has 10"),
        (lambda: a_shop(lambda rng: rng.integers(5, 6, size=(3, 12))), "grades from 5 to 5"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
