"""Robustness suites with hand-made scorers: no test here loads torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from relevance import changed_pairs as module
from relevance import evaluation
from relevance.baselines import BM25, TOKEN_OVERLAP
from relevance.bootstrap import resample_counts
from relevance.configs import EvaluationConfig
from relevance.data.market import MarketConfig, make_market
from relevance.data.pairs import judged_pairs
from relevance.data.readers import import_dataset
from relevance.data.tables import TABLES, DatasetCard, write_card, write_table
from relevance.evaluation import evaluate
from relevance.robustness import (
    KEYS,
    OVERALL,
    compare_changes,
    flatten,
    lexical_scorers,
    over_seeds,
    robustness,
)
from relevance.robustness_page import page
from relevance.robustness_tables import definitions_table, format_table, robustness_table
from relevance.transformations import SUITES, TRANSFORMATIONS, quantities

CONFIG = EvaluationConfig(resamples=50)
NAMES = [row.name for row in TRANSFORMATIONS]
BELOW = [row.name for row in TRANSFORMATIONS if row.direction == "stays below"]
ABOVE = [row.name for row in TRANSFORMATIONS if row.direction == "stays above"]
FALLS = [row.name for row in TRANSFORMATIONS if row.direction == "falls"]

# query: relevant titles, then irrelevant ones, of which one shares a word
JUDGED = {
    "bluetooth speaker": ["Blue Tooth Speaker 20W", "Bluetooth Speaker", "Speaker Stand", "Hose"],
    "power bank 12v": ["Powerbank 12V Slim", "Power Bank 12 V", "Power Drill", "Kettle"],
    "mini powerbank 5v": ["Mini Powerbank 5 V", "Mini Power Bank 5V", "Memory Bank Book", "Socks"],
    "bottle 500 ml": ["Glass Bottle 500ml", "Bottle 500 ML", "Bottle Opener", "Napkin"],
    "desk lamp": ["Desk Lamp Oak 30W", "Lamp For A Desk", "Desk Drawer", "Umbrella"],
    "green tent": ["Tent Green 5kg", "Green Family Tent", "Green Tea", "Violin"],
    "office chair": ["Chair Office Grey", "Office Chair 2kg", "Office Paper", "Zipper"],
    "hiking boots": ["Hiking Boots 1kg", "Boots Hiking", "Boots Rack", "Jug"],
}
OTHERS = ["Flashlight 24V", "Flash Light 1000 ml", "Keyboard 15kg", "Key Board 60W"]


def write_dataset(path: Path, split: str = "valid") -> Path:
    path.mkdir()
    titles = [title for of_query in JUDGED.values() for title in of_query] + OTHERS
    queries = [
        {"query_id": f"q{i}", "query": query, "split": split, "source": ("a", "b")[i % 2]}
        for i, query in enumerate(JUDGED)
    ]
    judgments = [
        {"query_id": f"q{i}", "item_id": f"i{4 * i + j}", "grade": 3 if j < 2 else 0}
        for i in range(len(JUDGED))
        for j in range(4)
    ]
    products = [{"item_id": f"i{i}", "title": title} for i, title in enumerate(titles)]
    for table, rows in (("queries", queries), ("judgments", judgments), ("products", products)):
        write_table(pa.Table.from_pylist(rows, schema=TABLES[table]), path, table)
    write_card(DatasetCard("toy", False, "CC0", {}), path)
    return path


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    made = tmp_path_factory.mktemp("shop") / "shop"
    make_market(MarketConfig(products=3_000, queries=300, searches=0, judgments=7_200), made)
    return made


def each(score):
    """Scorer of lists from a scorer of one pair."""
    return lambda queries, titles: np.array([score(*pair) for pair in zip(queries, titles)])  # noqa: B905


def letters(text: str) -> Counter[str]:
    text = text.lower().replace("50% off", "").replace("half price", "")
    for quantity in reversed(quantities(text)):
        text = text[: quantity.start] + text[quantity.end :]
    return Counter(text.replace(" ", ""))


def distance(a: Counter[str], b: Counter[str]) -> int:
    return ((a - b) + (b - a)).total()


def oracle(query: str, title: str) -> float:
    """Knows the judgments, reads through spelling and stuffing, and minds every quantity."""
    known = (old for of_query in JUDGED.values() for old in of_query if title.startswith(old))
    item = max(known, key=len)
    of_title = {(q.value, q.unit) for q in quantities(item)}
    if any((q.value, q.unit) not in of_title for q in quantities(query)):
        return -1.0
    found = min(JUDGED, key=lambda old: distance(letters(old), letters(query)))
    is_known = distance(letters(found), letters(query)) <= 2
    return float(is_known and item in JUDGED[found][:2])


def words(text: str) -> list[str]:
    return text.lower().split()


def bag_of_words(query: str, title: str) -> float:
    return float(len(set(words(query)) & set(words(title))))


def keyword_counter(query: str, title: str) -> float:
    return float(sum(words(title).count(word) for word in words(query)))


def trigrams(query: str, title: str) -> float:
    a, b = ({text[i : i + 3].lower() for i in range(len(text) - 2)} for text in (query, title))
    return len(a & b) / max(1, len(a))


def shares(result, model):
    return {name: found["value"] for name, found in result["models"][model]["suites"].items()}


class TestScorers:
    @pytest.fixture
    def result(self, data):
        rng = np.random.default_rng(0)
        result, _ = robustness(
            CONFIG,
            data,
            {
                "oracle": each(oracle),
                "constant": lambda queries, titles: np.full(len(queries), 0.7),
                "nearly constant": lambda queries, titles: 3 + 1e-8 * rng.random(len(queries)),
                "counter": each(keyword_counter),
                "bag": each(bag_of_words),
                "trigrams": each(trigrams),
            },
        )
        return result

    def test_every_transformation_is_offered_by_the_toy_shop(self, result):
        assert [row["name"] for row in result["transformations"]] == NAMES
        assert all(row["pairs"] for row in result["transformations"])

    def test_the_oracle_passes_everything(self, result):
        found = result["models"]["oracle"]
        wrong = {name: s["value"] for name, s in found["transformations"].items() if s["value"] < 1}
        assert not wrong
        assert found[OVERALL]["value"] == 1.0
        assert found["noise"] == 0.0

    @pytest.mark.parametrize("model", ["constant", "nearly constant"])
    def test_a_constant_scorer_earns_nothing(self, result, model):
        found = result["models"][model]
        assert all(share["value"] == 0 for share in found["transformations"].values())
        assert found[OVERALL]["value"] == 0
        assert found["sd"] == 0
        assert found["transformations"]["sale-in-query"]["change_sd"]["value"] is None

    def test_a_keyword_counter_falls_for_stuffing(self, result):
        # but for stacked keywords, which hold no word of the query
        for name in ("repeated-word", "stacked-query"):
            share = result["models"]["counter"]["transformations"][name]
            assert share["right_before"] > 0.7 > 0.2 > share["value"]
            assert share["change_sd"]["value"] > 1
        share = result["models"]["bag"]["transformations"]["repeated-word"]
        assert share["value"] == share["right_before"]

    def test_a_bag_of_words_does_not_see_the_order(self, result):
        share = result["models"]["bag"]["transformations"]["shuffled-words"]
        assert share["value"] == share["right_before"] > 0.7
        assert share["change"] == 0
        assert share["change_sd"]["low"] == share["change_sd"]["high"] == 0

    def test_trigrams_tolerate_the_typos_that_break_words(self, result):
        assert shares(result, "trigrams")["typos"] > shares(result, "bag")["typos"] + 0.2


def test_a_random_scorer_earns_a_quarter_or_a_third(shop):
    scorers = {
        f"random{seed}": lambda queries, titles, seed=seed: np.random.default_rng(seed).random(
            len(queries)
        )
        for seed in range(8)
    }
    result, _ = robustness(EvaluationConfig(resamples=1, split="train"), shop, scorers)

    def mean(name):
        return np.mean([m["transformations"][name]["value"] for m in result["models"].values()])

    assert mean("swapped-letters") == pytest.approx(1 / 4, abs=0.04)
    assert mean("sale-in-title") == pytest.approx(1 / 3, abs=0.04)
    assert mean("stacked-query") == pytest.approx(1 / 3, abs=0.04)
    assert mean("added-quantity") == pytest.approx(1 / 4, abs=0.04)


def test_a_monotone_change_of_scale_changes_no_share(data):
    result, _ = robustness(
        CONFIG,
        data,
        {
            "logit": each(trigrams),
            "probability": each(lambda q, t: 1 / (1 + np.exp(-trigrams(q, t)))),
        },
    )
    a, b = (
        {name: share["value"] for name, share in found["transformations"].items()}
        for found in result["models"].values()
    )
    assert a == b


class TestStatistics:
    @pytest.fixture
    def both(self, shop):
        scorers = lexical_scorers(CONFIG, shop) | {"trigrams": each(trigrams)}
        return robustness(CONFIG, shop, scorers)

    def test_shares_are_those_computed_directly(self, shop, both):
        result, cases = both
        pairs = judged_pairs(shop, "valid")
        relevant = pairs[pairs["grade"] >= 3].groupby("query_id")["title"].apply(set)
        irrelevant = pairs[pairs["grade"] < 3].groupby("query_id")["title"].apply(set)
        judged = np.array([trigrams(*p) for p in zip(pairs["query"], pairs["title"], strict=True)])

        def percentile(score):
            return ((judged < score).mean() + (judged <= score).mean()) / 2

        before, after = (
            np.array([percentile(s) for s in cases[f"trigrams/{side}"]])
            for side in ("before", "after")
        )
        is_above = cases["transformation"].isin(ABOVE).to_numpy()
        noise = np.median(np.abs(before - after)[is_above])
        assert result["models"]["trigrams"]["noise"] == pytest.approx(noise)
        assert result["models"]["trigrams"]["sd"] == pytest.approx(judged.std())
        is_fall = cases["transformation"].isin(FALLS).to_numpy()
        got = cases["trigrams/share"].to_numpy()
        assert ((before - after > noise)[is_fall] == got[is_fall]).all()
        few = 0
        for row in cases[~is_fall].to_dict("records"):
            is_below = row["transformation"] in BELOW
            titles = sorted((relevant if is_below else irrelevant)[row["query_id"]])
            if len(titles) > module.RIVALS:
                continue  # which of them were drawn is not written
            few += 1
            kept = [
                all(
                    (trigrams(query, rival) - trigrams(query, title)) * (1 if is_below else -1)
                    > 1e-9
                    for query, title in (
                        (row["query_before"], row["title_before"]),
                        (row["query_after"], row["title_after"]),
                    )
                )
                for rival in titles
            ]
            assert row["trigrams/share"] == pytest.approx(np.mean(kept))
        assert few > 50

    def test_values_intervals_and_differences_resample_queries(self, both):
        result, cases = both
        for name in ("swapped-letters", "added-quantity"):
            part = cases[cases["transformation"] == name]
            query, ids = pd.factorize(cases["query_id"], sort=True)
            query = query[part.index]
            counts = np.concatenate(
                list(resample_counts(np.zeros(len(ids), int), resamples=50, seed=0))
            )
            weight = counts[:, query]
            means = {}
            for model in ("trigrams", BM25):
                share = part[f"{model}/share"].to_numpy()
                means[model] = (weight * share).sum(axis=1) / weight.sum(axis=1)
                found = result["models"][model]["transformations"][name]
                assert found["value"] == pytest.approx(share.mean())
                low, high = np.quantile(means[model], [0.025, 0.975])
                assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
            low, high = np.quantile(means["trigrams"] - means[BM25], [0.025, 0.975])
            found = result["differences"]["trigrams"][BM25][name]
            assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))

    def test_suites_pool_their_pairs_and_overall_is_the_mean_of_suites(self, both):
        result, cases = both
        suite_of = {row.name: row.suite for row in TRANSFORMATIONS}
        pooled = cases.groupby(cases["transformation"].map(suite_of))["trigrams/share"].mean()
        found = result["models"]["trigrams"]
        assert shares(result, "trigrams") == pytest.approx(dict(pooled))
        assert all(suite["queries"] >= 5 for suite in result["suites"].values())
        assert found[OVERALL]["value"] == pytest.approx(pooled.mean())

    def test_the_change_is_told_raw_and_in_standard_deviations(self, both):
        result, cases = both
        part = cases[cases["transformation"] == "stacked-query"]
        raw = (part["trigrams/after"] - part["trigrams/before"]).mean()
        found = result["models"]["trigrams"]
        share = found["transformations"]["stacked-query"]
        assert share["change"] == pytest.approx(raw)
        assert share["change_sd"]["value"] == pytest.approx(raw / found["sd"])

    def test_the_table_for_several_seeds_means_over_them_and_pairs_with_the_reference(self, both):
        result, cases = both
        models = {"two": ["trigrams", TOKEN_OVERLAP], "bm25": [BM25]}
        lines = robustness_table(CONFIG, cases, models, "bm25").splitlines()
        rows = {
            cells[0]: cells[1:]
            for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
        }
        assert rows["transformation"] == ["two", "bm25", "two − bm25"]
        assert set(rows) >= {*NAMES, OVERALL, *(f"all of {suite}" for suite in SUITES)}
        part = cases[cases["transformation"] == "dropped-letter"]
        two = (part["trigrams/share"] + part[f"{TOKEN_OVERLAP}/share"]).mean() / 2
        bm25 = result["models"][BM25]["transformations"]["dropped-letter"]
        cells = rows["dropped-letter"]
        assert cells[0].startswith(f"{two:.3f} [")
        assert cells[1] == f"{bm25['value']:.3f} [{bm25['low']:.3f}, {bm25['high']:.3f}]"
        assert cells[2].startswith(f"{two - bm25['value']:+.3f} [")
        alone = [result["models"][name][OVERALL]["value"] for name in ("trigrams", TOKEN_OVERLAP)]
        assert rows["overall, each seed"][0] == ", ".join(f"{value:.3f}" for value in alone)

    def test_the_table_refuses_what_it_cannot_compare(self, both):
        _, cases = both
        with pytest.raises(ValueError, match="reference 'x': unknown; there are a"):
            robustness_table(CONFIG, cases, {"a": [BM25]}, "x")
        with pytest.raises(ValueError, match="no column 'b/share'; there are transformation"):
            robustness_table(CONFIG, cases, {"a": ["b"]}, "a")
        with pytest.raises(ValueError, match="model 'a': no seeds"):
            robustness_table(CONFIG, cases, {"a": []}, "a")

    def test_several_seeds_are_compared_as_their_parquet_is(self, shop, both):
        result, cases = both
        changed = module.ChangedPairs.of(CONFIG, shop)
        asked = {
            name: scorer(changed.queries, changed.titles)
            for name, scorer in (lexical_scorers(CONFIG, shop) | {"3": each(trigrams)}).items()
        }
        scores = {BM25: [asked[BM25]], "mine": [asked["3"], asked[TOKEN_OVERLAP]]}
        found = compare_changes(CONFIG, changed, scores, BM25)
        names = {BM25: [BM25], "mine": ["trigrams", TOKEN_OVERLAP]}
        same = over_seeds(CONFIG, cases, names, BM25)
        assert {key: found[key] for key in same} == same
        assert set(found["shares"]["mine"]) == set(KEYS)
        alone = [result["models"][name] for name in names["mine"]]
        overall = found["shares"]["mine"][OVERALL]
        assert overall["seeds"] == [model[OVERALL]["value"] for model in alone]
        assert overall["sd"] == pytest.approx(np.std(overall["seeds"], ddof=1))
        moved = [model["transformations"]["stacked-query"]["change_sd"]["value"] for model in alone]
        assert found["changes"]["mine"]["stacked-query"]["value"] == pytest.approx(np.mean(moved))
        assert set(found["less_reference"]) == {"mine"}


class TestChanges:
    def test_two_processes_with_other_hash_seeds_change_alike(self, data):
        code = (
            "import sys, pathlib, hashlib; sys.path.insert(0, '.')\n"
            "from relevance.configs import EvaluationConfig\n"
            "from relevance import robustness as r\n"
            f"data = pathlib.Path({str(data)!r})\n"
            "_, cases = r.robustness(EvaluationConfig(resamples=5), data, "
            "r.lexical_scorers(EvaluationConfig(), data))\n"
            "print(hashlib.sha256(cases.to_csv().encode()).hexdigest())"
        )
        seen = {
            subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"PYTHONHASHSEED": seed},
                check=True,
                capture_output=True,
                text=True,
                cwd=Path(__file__).resolve().parents[2],
            ).stdout
            for seed in ("1", "2")
        }
        assert len(seen) == 1

    def test_another_seed_draws_other_changes(self, data):
        def typos(seed):
            config = EvaluationConfig(resamples=1, seed=seed)
            cases = robustness(config, data, {"bag": each(bag_of_words)})[1]
            return set(cases[cases["transformation"] == "neighbour-key"]["query_after"])

        assert typos(0) == typos(0) != typos(1)

    def test_a_query_gets_one_typo_of_each_kind(self, shop):
        _, cases = robustness(CONFIG, shop, {"bag": each(bag_of_words)})
        typos = cases[cases["transformation"].isin(["swapped-letters", "dropped-letter"])]
        per_query = typos.groupby(["transformation", "query_id"])["query_after"].nunique()
        assert (per_query == 1).all()
        assert (typos["query_after"] != typos["query_before"]).all()

    def test_stuffed_titles_are_clearly_irrelevant_and_the_others_relevant(self, shop):
        _, cases = robustness(CONFIG, shop, {"bag": each(bag_of_words)})
        is_below = cases["transformation"].isin(BELOW)
        assert (cases[is_below]["grade"] < 1).all()
        assert (cases[~is_below]["grade"] >= 3).all()

    def test_each_changed_quantity_is_one_that_the_title_does_not_have(self, shop):
        _, cases = robustness(CONFIG, shop, {"bag": each(bag_of_words)})
        for row in cases[
            cases["transformation"].isin(["changed-quantity", "changed-unit"])
        ].itertuples():
            asked = {(q.value, q.unit) for q in quantities(row.query_after)}
            old = {(q.value, q.unit) for q in quantities(row.query_before)}
            assert len(asked - old) == 1
            assert not (asked - old) & {(q.value, q.unit) for q in quantities(row.title_after)}


class TestEvaluate:
    def test_all_files_come_out_and_hold_the_same(self, data, tmp_path, monkeypatch):
        loaded = []
        monkeypatch.setattr(
            evaluation,
            "_checkpoint_scorer",
            lambda checkpoint, name: loaded.append(name) or each(trigrams),
        )
        monkeypatch.setattr(evaluation, "served_probability", lambda *given: None)
        out = tmp_path / "out"
        values = evaluate(CONFIG, data, {"mine": tmp_path / "model"}, out, with_robustness=True)
        assert sorted(path.name for path in out.iterdir()) == [
            "evaluation.json",
            "index.html",
            "robustness.html",
            "robustness.json",
            "robustness.parquet",
            "scores.parquet",
        ]
        assert loaded == ["mine"]  # once for both
        assert 'href="robustness.html"' in (out / "index.html").read_text()
        result = json.loads((out / "robustness.json").read_text())
        shares = flatten(result)
        assert shares.items() <= values.items()
        assert {name.split("/")[0] for name in shares} == {BM25, TOKEN_OVERLAP, "mine"}
        assert {name.split("/")[2] for name in shares} == {OVERALL, *NAMES}
        assert result["dataset"] == "toy"
        assert set(result["differences"]["mine"]) == {BM25, TOKEN_OVERLAP}
        cases = pd.read_parquet(out / "robustness.parquet")
        assert len(cases) == result["changed"]
        row = cases.iloc[0]
        assert row["mine/after"] == trigrams(row["query_after"], row["title_after"])
        html = (out / "robustness.html").read_text()
        for text in ("Robustness: toy", "mine − bm25", *NAMES, "noise"):
            assert text in html
        table = format_table(result)
        assert all(f"| {name} " in table for name in (*NAMES, OVERALL))

    def test_without_robustness_there_is_no_link_to_it(self, data, tmp_path):
        evaluate(CONFIG, data, {}, tmp_path / "out")
        assert "robustness.html" not in (tmp_path / "out" / "index.html").read_text()

    def test_the_suites_come_out_as_without_an_evaluation(self, data, tmp_path):
        evaluate(CONFIG, data, {}, tmp_path / "out", with_robustness=True)
        stored = json.loads((tmp_path / "out" / "robustness.json").read_text())
        assert stored == robustness(CONFIG, data, lexical_scorers(CONFIG, data))[0]


class TestRefusals:
    def test_a_split_without_judged_pairs(self, data):
        config = EvaluationConfig(split="test")
        with pytest.raises(ValueError, match=r"split 'test' has no judged pairs; .* valid \(32\)"):
            robustness(config, data, {"bag": each(bag_of_words)})

    def test_no_scorers(self, data):
        with pytest.raises(ValueError, match="no scorers, want one or more"):
            robustness(CONFIG, data, {})

    def test_scores_that_are_not_finite_are_named_with_their_pair(self, data):
        def broken(query, title):
            return float("nan") if "50% off" in query else 1.0

        with pytest.raises(ValueError, match=r"model 'broken': score of query '.*50% off', title"):
            robustness(CONFIG, data, {"broken": each(broken)})

    def test_scores_of_the_wrong_number(self, data):
        with pytest.raises(ValueError, match=r"model 'short': 3 scores for \d+ pairs"):
            robustness(CONFIG, data, {"short": lambda queries, titles: np.zeros(3)})


def test_a_change_that_no_pair_offers_has_a_row_of_zero_pairs(data, monkeypatch):
    monkeypatch.setitem(JUDGED, "bottle 500 ml", ["Bottle A", "Bottle B", "Opener", "Napkin"])
    plain = write_dataset(data.parent / "plain")
    monkeypatch.setattr(module, "_titles", lambda data: iter(()))
    result, _ = robustness(CONFIG, plain, {"bag": each(bag_of_words)})
    row = next(row for row in result["transformations"] if row["name"] == "split-compound")
    assert (row["pairs"], row["queries"], row["example"]) == (0, 0, None)
    share = result["models"]["bag"]["transformations"]["split-compound"]
    assert share["value"] is share["low"] is share["change"] is None
    assert result["suites"]["compounds"]["pairs"] == 0
    assert result["models"]["bag"][OVERALL]["value"] is not None
    assert "| split-compound    | compounds  | stays above | 0  " in format_table(result)
    assert "bag/robustness/split-compound" not in flatten(result)


def test_judged_pairs_that_offer_nothing_at_all_give_only_zeros(tmp_path):
    data = write_dataset_of_one(tmp_path / "data")
    result, _ = robustness(CONFIG, data, {"bag": each(bag_of_words)})
    assert result["changed"] == 0
    assert result["models"]["bag"][OVERALL]["value"] is None
    assert flatten(result) == {}
    assert page(result).count("no judged pair offers it") == len(NAMES)


def write_dataset_of_one(path: Path) -> Path:
    """One irrelevant pair."""
    path.mkdir()
    rows = {
        "queries": [{"query_id": "q", "query": "a", "split": "valid", "source": "s"}],
        "judgments": [{"query_id": "q", "item_id": "i", "grade": 0}],
        "products": [{"item_id": "i", "title": "b"}],
    }
    for table, content in rows.items():
        write_table(pa.Table.from_pylist(content, schema=TABLES[table]), path, table)
    write_card(DatasetCard("one", False, "CC0", {}), path)
    return path


def test_the_guide_lists_every_transformation_as_the_code_does(root):
    assert definitions_table() in (root / "docs" / "robustness.md").read_text()


@pytest.mark.parametrize("name", ["chorus", "esci"])
def test_real_data_offers_pairs_for_every_suite(shared_data, tmp_path, name):
    import_dataset(name, shared_data(name), tmp_path / name)
    config = EvaluationConfig(resamples=1, split="train")
    result, _ = robustness(config, tmp_path / name, lexical_scorers(config, tmp_path / name))
    pairs = {suite: found["pairs"] for suite, found in result["suites"].items()}
    assert min(pairs.values()) >= 20, pairs
    assert all(found["queries"] >= 5 for found in result["suites"].values())
