"""Evaluation end to end with injected scores: no test here loads torch."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from relevance import evaluation as module
from relevance.baselines import BM25, TOKEN_OVERLAP
from relevance.configs import EvaluationConfig
from relevance.data.pairs import judged_pairs
from relevance.data.tables import TABLES, DatasetCard, write_card, write_table
from relevance.evaluation import (
    evaluate,
    evaluate_scores,
    flatten,
    format_table,
    paired_difference,
)
from relevance.evaluation_page import _ticks, page
from relevance.metrics import METRICS

CONFIG = EvaluationConfig(resamples=40)

COLOURS = ("red", "blue", "green", "black", "white")
THINGS = ("lamp", "chair", "desk", "table", "sofa", "shelf")


def write_dataset(path: Path, splits=("train", "valid"), *, is_generated=False) -> Path:
    """Every colour and thing, asked for by colour, thing and both, judged 0 to 3."""
    path.mkdir()
    items = [(f"{c} {t}", t) for c in COLOURS for t in THINGS]
    queries = [*COLOURS, *THINGS, *(f"{c} {t} for home" for c, t in zip(COLOURS, THINGS))]  # noqa: B905
    rows = [
        {
            "query_id": f"q{i:02}-{split}",
            "query": query,
            "split": split,
            "source": ("shop-a", "shop-b")[i % 2],
            "searches": None if i == 0 else 100 // (i + 1),
        }
        for split in splits
        for i, query in enumerate(queries)
    ]
    judgments = [
        {
            "query_id": row["query_id"],
            "item_id": f"i{j}",
            "grade": judge(row["query"], title, row["query_id"] + title),
            "rater": None,
        }
        for row in rows
        for j, (title, _) in enumerate(items)
        if (j + len(row["query"])) % 3 == 0
    ]
    products = [
        {"item_id": f"i{j}", "title": title, "category": category if j % 7 else None}
        for j, (title, category) in enumerate(items)
    ]
    for table, content in (("queries", rows), ("judgments", judgments), ("products", products)):
        write_table(pa.Table.from_pylist(content, schema=TABLES[table]), path, table)
    write_card(DatasetCard("toy", is_generated, "CC0", {}), path)
    return path


def judge(query: str, title: str, salt: str) -> int:
    """Share of the title asked for, with some noise that the same text always gets."""
    found = sum(word in query.split() for word in title.split())
    noise = sum(map(ord, salt)) % 5
    return min(3, 2 * found + (noise == 0) + (noise == 1 and found > 0))


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def pairs(data):
    return judged_pairs(data, "valid")


def scores_of(pairs: pd.DataFrame) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    grade = pairs["grade"].to_numpy()
    return {
        BM25: grade + rng.normal(size=len(pairs)) * 4,
        TOKEN_OVERLAP: grade + rng.normal(size=len(pairs)) * 3,
        "good": grade + rng.normal(size=len(pairs)),
        "random": rng.normal(size=len(pairs)),
    }


class TestEvaluate:
    def inject(self, monkeypatch, scores):
        """Let every checkpoint have these scores, and serve no probabilities."""
        monkeypatch.setattr(
            module, "_checkpoint_scorer", lambda checkpoint, name: lambda queries, titles: scores
        )
        monkeypatch.setattr(module, "served_probability", lambda *given: None)

    def test_all_three_files_and_every_metric_come_out(self, data, tmp_path, monkeypatch):
        pairs = judged_pairs(data, "valid")
        self.inject(monkeypatch, pairs["grade"] + 0.0)
        out = tmp_path / "out"
        values = evaluate(CONFIG, data, {"oracle": tmp_path / "model"}, out)
        assert sorted(path.name for path in out.iterdir()) == [
            "evaluation.json",
            "index.html",
            "scores.parquet",
        ]
        names = {name.partition("/")[0] for name in values}
        assert names == {BM25, TOKEN_OVERLAP, "oracle"}
        assert set(METRICS) == {name.partition("/")[2] for name in values}
        assert values["oracle/roc_auc"] == 1.0
        assert values["oracle/ndcg@10"] == 1.0
        stored = json.loads((out / "evaluation.json").read_text())
        assert flatten(stored) == values
        assert stored["dataset"] == "toy"
        assert len(stored["data_hash"]) == 64
        assert any("fitted on" in note for note in stored["notes"])

    def test_scores_parquet_holds_what_a_gate_needs(self, data, tmp_path, monkeypatch):
        pairs = judged_pairs(data, "valid")
        self.inject(monkeypatch, pairs["grade"] * 2)
        evaluate(CONFIG, data, {"m": tmp_path}, tmp_path / "out")
        stored = pd.read_parquet(tmp_path / "out" / "scores.parquet")
        assert list(stored) == ["query_id", "item_id", "source", "grade", BM25, TOKEN_OVERLAP, "m"]
        assert (stored["m"] == pairs["grade"] * 2).all()
        evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        for metric in METRICS:
            expected = evaluation["differences"]["m"][BM25][metric]
            got = paired_difference(stored, metric, "m", BM25, CONFIG)
            assert got == pytest.approx((expected["value"], expected["low"], expected["high"]))

    def test_baselines_alone_need_neither_checkpoint_nor_torch(self, data, tmp_path):
        before = set(sys.modules)
        values = evaluate(CONFIG, data, {}, tmp_path / "out")
        assert not {"torch", "transformers"} & (set(sys.modules) - before)
        assert values[f"{TOKEN_OVERLAP}/roc_auc"] > 0.7
        assert "Only the baselines" in (tmp_path / "out" / "index.html").read_text()

    def test_the_same_config_gives_the_same_files(self, data, tmp_path):
        for name in ("a", "b"):
            evaluate(CONFIG, data, {}, tmp_path / name)
        for file in ("evaluation.json", "index.html", "scores.parquet"):
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()

    def test_without_train_judgments_overlap_is_not_fitted_and_it_says_so(self, tmp_path):
        data = write_dataset(tmp_path / "data", splits=("valid",))
        evaluate(CONFIG, data, {}, tmp_path / "out")
        notes = json.loads((tmp_path / "out" / "evaluation.json").read_text())["notes"]
        assert any("not fitted, since the train split has 0 judged pairs" in n for n in notes)

    def test_a_split_without_judgments_is_answered_with_those_that_have_some(self, data, tmp_path):
        with pytest.raises(ValueError, match=r"'test' has no judged .*train \(\d+\), valid \(\d+"):
            evaluate(EvaluationConfig(split="test"), data, {}, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_scores_that_are_no_numbers_name_model_and_pair(
        self, data, tmp_path, monkeypatch, wrong
    ):
        pairs = judged_pairs(data, "valid")
        scores = pairs["grade"].to_numpy().copy()
        scores[5] = wrong
        self.inject(monkeypatch, scores)
        row = pairs.iloc[5]
        message = f"model 'm': score of query_id '{row['query_id']}', item_id '{row['item_id']}'"
        with pytest.raises(ValueError, match=message):
            evaluate(CONFIG, data, {"m": tmp_path}, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", [BM25, "grade"])
    def test_names_that_are_taken_are_refused(self, data, tmp_path, name):
        with pytest.raises(ValueError, match=f"{name}.*taken"):
            evaluate(CONFIG, data, {name: tmp_path}, tmp_path / "out")

    def test_an_existing_output_is_refused_before_any_work(self, tmp_path):
        (tmp_path / "out").mkdir()
        with pytest.raises(FileExistsError):
            evaluate(CONFIG, tmp_path / "absent", {}, tmp_path / "out")


class TestServedProbabilities:
    """Checkpoints whose calibration is far from what the pairs would have fitted."""

    def checkpoint(self, path: Path, querylift: dict) -> Path:
        path.mkdir()
        (path / "config.json").write_text(json.dumps({"querylift": querylift}))
        return path

    def direct_ece(self, relevant, probability):
        """Mean distance of ten bins, counted pair by pair."""
        tenth = np.minimum((probability * 10).astype(int), 9)
        bins = [tenth == b for b in range(10) if (tenth == b).any()]
        gaps = [abs(probability[rows].mean() - relevant[rows].mean()) for rows in bins]
        return np.average(gaps, weights=[rows.sum() for rows in bins])

    @pytest.fixture
    def evaluated(self, data, pairs, tmp_path, monkeypatch):
        monkeypatch.setattr(
            module,
            "_checkpoint_scorer",
            lambda checkpoint, name: lambda queries, titles: scores_of(pairs)["good"],
        )
        calibration = {"temperature": 0.5, "offset": 1.5}
        checkpoints = {
            "new": self.checkpoint(tmp_path / "new", {"calibration": calibration}),
            "old": self.checkpoint(tmp_path / "old", {"family": "bert"}),
        }

        def run(config):
            evaluate(config, data, checkpoints, tmp_path / "out")
            return json.loads((tmp_path / "out" / "evaluation.json").read_text())

        return run

    def test_ece_and_f1_of_a_checkpoint_are_of_what_it_serves(self, evaluated, pairs):
        found = evaluated(CONFIG)["models"]["new"]
        probability = 1 / (1 + np.exp(-(scores_of(pairs)["good"] / 0.5 + 1.5)))
        relevant = (pairs["grade"] >= 3).to_numpy()
        assert found["ece"]["value"] == pytest.approx(self.direct_ece(relevant, probability))
        hits = (relevant & (probability >= 0.5)).sum()
        f1 = 2 * hits / (relevant.sum() + (probability >= 0.5).sum())
        assert found["f1_relevant"]["value"] == pytest.approx(f1)

    def test_all_else_is_as_without_them(self, evaluated, data, pairs, tmp_path):
        found = evaluated(CONFIG)
        plain = pd.read_parquet(tmp_path / "out" / "scores.parquet")
        names = (BM25, TOKEN_OVERLAP, "new", "old")
        expected = evaluate_scores(CONFIG, pairs, {name: plain[name] for name in names})
        for name in (BM25, TOKEN_OVERLAP, "old"):
            assert found["models"][name] == expected["models"][name]
        for metric in ("roc_auc", "spearman", "pearson", "ndcg@10"):
            assert found["models"]["new"][metric] == expected["models"]["new"][metric]
        assert found["models"]["new"]["ece"]["value"] > expected["models"]["new"]["ece"]["value"]

    def test_the_notes_say_which_are_whose(self, evaluated):
        note = next(n for n in evaluated(CONFIG)["notes"] if n.startswith("Probabilities"))
        assert "those that new serve" in note
        assert "of the others, which serve none, Platt scaling cross-fitted" in note

    def test_at_another_grade_nothing_serves_probabilities(self, evaluated):
        found = evaluated(EvaluationConfig(resamples=40, relevant_grade=2))
        assert found["models"]["new"] == found["models"]["old"]


class TestScores:
    def test_values_lie_in_their_intervals(self, pairs):
        result = evaluate_scores(CONFIG, pairs, scores_of(pairs))
        for metrics in result["models"].values():
            # resampling can only add to a calibration error, so its interval leans upwards
            for name in set(metrics) - {"ece"}:
                assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]

    def test_a_better_model_differs_from_both_baselines(self, pairs):
        result = evaluate_scores(CONFIG, pairs, scores_of(pairs))
        assert list(result["differences"]) == ["good", "random"]
        for baseline in (BM25, TOKEN_OVERLAP):
            assert result["differences"]["good"][baseline]["roc_auc"]["low"] > 0

    def test_pairing_makes_a_difference_tighter_than_either_value(self, pairs):
        scores = scores_of(pairs)
        rng = np.random.default_rng(1)
        scores["good"] = scores[BM25] + rng.normal(size=len(pairs)) * 0.1
        result = evaluate_scores(EvaluationConfig(resamples=200), pairs, scores)
        value = result["models"]["good"]["roc_auc"]
        difference = result["differences"]["good"][BM25]["roc_auc"]
        assert difference["high"] - difference["low"] < (value["high"] - value["low"]) / 3

    def test_row_order_changes_nothing(self, pairs):
        shuffle = np.random.default_rng(0).permutation(len(pairs))
        scores = scores_of(pairs)
        one = evaluate_scores(CONFIG, pairs, scores)
        two = evaluate_scores(
            CONFIG, pairs.iloc[shuffle], {name: s[shuffle] for name, s in scores.items()}
        )
        assert flatten(two) == pytest.approx(flatten(one), abs=1e-9)
        assert two["models"]["good"]["roc_auc"] == pytest.approx(one["models"]["good"]["roc_auc"])

    def test_slices_partition_the_pairs(self, pairs):
        slices = evaluate_scores(CONFIG, pairs, scores_of(pairs))["slices"]
        by = {}
        for part in slices:
            by.setdefault(part["by"], []).append(part)
        assert list(by) == ["source", "query words", "category", "frequency"]
        for parts in by.values():
            assert sum(part["pairs"] for part in parts) == len(pairs)
        assert [part["name"] for part in by["source"]] == ["shop-a", "shop-b"]
        assert [part["name"] for part in by["query words"]] == ["1", "4+"]
        assert [part["name"] for part in by["frequency"]] == ["head", "torso", "tail", "unknown"]
        assert "unknown" in [part["name"] for part in by["category"]]
        head, torso, tail = (part["queries"] for part in by["frequency"][:3])
        assert head + torso + tail == pairs["query_id"].nunique() - 1
        assert abs(head - tail) <= 2

    def test_only_the_ten_largest_categories_are_sliced(self, pairs):
        pairs = pairs.assign(category=[f"c{i % 14:02}" for i in range(len(pairs))])
        slices = evaluate_scores(CONFIG, pairs, scores_of(pairs))["slices"]
        sizes = [part["pairs"] for part in slices if part["by"] == "category"]
        assert len(sizes) == 10
        assert sizes == sorted(sizes, reverse=True)

    def test_without_searches_every_frequency_is_unknown(self, pairs):
        slices = evaluate_scores(CONFIG, pairs.assign(searches=None), scores_of(pairs))["slices"]
        assert [part["name"] for part in slices if part["by"] == "frequency"] == ["unknown"]

    def test_a_slice_of_one_class_is_skipped_with_the_reason(self, pairs):
        in_first = (pairs["source"] == "shop-a").to_numpy()
        pairs = pairs.assign(grade=np.where(in_first, 0.0, pairs["grade"]))
        result = evaluate_scores(CONFIG, pairs, scores_of(pairs))
        first = next(part for part in result["slices"] if part["name"] == "shop-a")
        assert first["skipped_because"] == "no relevant pair"
        assert "models" not in first
        assert "no relevant pair" in page(result)

    def test_a_slice_of_few_queries_gets_a_value_without_interval(self, pairs):
        few = pairs["query_id"].isin(pairs["query_id"].unique()[[13, 15]])
        pairs = pairs.assign(source=np.where(few, "small", "large"))
        result = evaluate_scores(CONFIG, pairs, scores_of(pairs))
        small = next(part for part in result["slices"] if part["name"] == "small")
        assert small["queries"] == 2
        for found in (small["models"]["good"], small["differences"]["good"][BM25]):
            assert found["value"] is not None
            assert found["low"] is None
            assert found["high"] is None
        page(result)

    def test_one_class_everywhere_is_undefined_not_an_error(self, pairs):
        result = evaluate_scores(CONFIG, pairs.assign(grade=0.0), scores_of(pairs))
        assert result["models"]["good"]["roc_auc"]["value"] is None
        assert any("no relevant pair" in note for note in result["notes"])
        assert "good/roc_auc" not in flatten(result)
        assert "undefined" in page(result)
        assert "–" in format_table(result)
        json.dumps(result, allow_nan=False)

    def test_the_relevant_grade_decides_the_classes(self, pairs):
        strict, loose = (
            evaluate_scores(EvaluationConfig(relevant_grade=g, resamples=5), pairs, {})
            for g in (3.0, 2.0)
        )
        assert loose["relevant"] > strict["relevant"]
        assert "grade 2 or better" in loose["definitions"]["roc_auc"]

    def test_wrong_number_of_scores_raises(self, pairs):
        with pytest.raises(ValueError, match="model 'm': 3 scores for"):
            evaluate_scores(CONFIG, pairs, {"m": np.zeros(3)})


class TestPairedDifference:
    def table(self, pairs):
        keys = pairs[["query_id", "item_id", "source", "grade"]]
        return keys.assign(**scores_of(pairs))

    def test_it_turns_its_sign_with_the_sides(self, pairs):
        table = self.table(pairs)
        value, low, high = paired_difference(table, "roc_auc", "good", BM25, CONFIG)
        assert 0 < low < value < high
        assert paired_difference(table, "roc_auc", BM25, "good", CONFIG) == pytest.approx(
            (-value, -high, -low)
        )

    def test_a_model_against_itself_is_exactly_zero(self, pairs):
        assert paired_difference(self.table(pairs), "ece", "good", "good", CONFIG) == (0, 0, 0)

    def test_few_queries_leave_its_interval_open_so_that_no_gate_passes(self, pairs):
        table = self.table(pairs[pairs["query_id"].isin(pairs["query_id"].unique()[[13, 15]])])
        value, low, high = paired_difference(table, "roc_auc", "good", BM25, CONFIG)
        assert np.isfinite(value)
        assert np.isnan(low)
        assert np.isnan(high)

    def test_an_absent_column_is_answered_with_those_there(self, pairs):
        with pytest.raises(ValueError, match=r"no column 'champion'; there are query_id, "):
            paired_difference(self.table(pairs), "roc_auc", "champion", "good", CONFIG)

    def test_an_unknown_metric_raises(self, pairs):
        with pytest.raises(ValueError, match="'auc': unknown; there are roc_auc"):
            paired_difference(self.table(pairs), "auc", "random", "good", CONFIG)


class TestTable:
    def test_rows_are_models_and_columns_metrics(self, pairs):
        result = evaluate_scores(CONFIG, pairs, scores_of(pairs))
        lines = format_table(result).splitlines()
        assert len(lines) == 2 + 4
        assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["model", *METRICS]
        area = result["models"]["good"]["roc_auc"]
        assert f"{area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]" in lines[4]
        assert len({len(line) for line in lines}) == 1


class TestPage:
    def test_generated_data_is_announced_and_real_data_is_not(self, tmp_path):
        for is_generated in (True, False):
            data = write_dataset(tmp_path / f"d{is_generated}", is_generated=is_generated)
            evaluate(CONFIG, data, {}, tmp_path / f"o{is_generated}")
            text = (tmp_path / f"o{is_generated}" / "index.html").read_text()
            assert ("Generated data" in text) == is_generated

    def test_names_are_escaped_and_tags_balanced(self, pairs):
        scores = scores_of(pairs)
        scores["<script>alert(1)</script>"] = scores.pop("good")
        text = page(evaluate_scores(CONFIG, pairs, scores))
        assert "<script>" not in text
        assert unbalanced(text) == []

    def test_it_loads_nothing_from_elsewhere(self, pairs):
        text = page(evaluate_scores(CONFIG, pairs, scores_of(pairs)))
        assert "http" not in text
        assert text.count("<svg") == len(METRICS)

    @pytest.mark.parametrize("ends", [(0.71, 0.83), (0.5, 0.5), (-0.02, 0.4), (0.0, 1.0)])
    def test_axes_enclose_their_numbers_with_few_round_ticks(self, ends):
        ticks = _ticks(*ends)
        assert ticks[0] <= ends[0]
        assert ends[1] <= ticks[-1]
        assert ticks[0] < ticks[-1]
        assert 2 <= len(ticks) <= 7


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"relevant_grade": 0.0}, "relevant_grade is 0"),
            ({"relevant_grade": 4.0}, "relevant_grade is 4"),
            ({"gains": (0.0, 1.0)}, "one for each grade"),
            ({"gains": (0.0, 0.1, 0.01, 1.0)}, "never falling"),
            ({"gains": (0.0, 0.0, 0.0, 0.0)}, "above 0"),
            ({"resamples": 0}, "resamples is 0"),
        ],
    )
    def test_impossible_settings_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            EvaluationConfig(**settings)


def unbalanced(text: str) -> list[str]:
    """Tags left open at the end, void ones aside."""
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Parser().feed(text)
    return opened
