"""Scorers: as fast as may be, and the scores of the model all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevance.calibration import Calibration
from relevance.engine import ROWS, has_bf16
from relevance.inference import score_pairs
from relevance.item_table import ItemTable, build_item_table
from relevance.models import load, save
from relevance.models.base import Model
from relevance.scorer import BUDGET, CrossScorer, Job, Scorer, _batches, open_scorer
from relevance.titles import Titles
from tests.checkpoints import KINDS, write_checkpoint

WORDS = "red blue green black lamp shirt cable kettle 12v 24v 500ml acme zenit unknownword".split()
CLOSE = 2e-5
"""Random networks are rougher than a trained one: ``benchmarks/scoring.py`` measures 7e-6 there."""
CROSS = KINDS[:-1]

texts = st.lists(st.sampled_from(WORDS), min_size=0, max_size=45).map(" ".join)


@pytest.fixture(scope="module")
def checkpoints(
    clicked_data: Path, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    home = tmp_path_factory.mktemp("checkpoints")

    def made(kind: str) -> Path:
        if not (home / kind).exists():
            write_checkpoint(kind, home / kind, vocabulary, clicked_data)
        return home / kind

    return made


@pytest.fixture(scope="module")
def models(checkpoints: Callable[[str], Path]) -> dict[str, Model]:
    return {kind: load(checkpoints(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def scorers(checkpoints: Callable[[str], Path]) -> dict[str, Scorer]:
    return {kind: open_scorer(checkpoints(kind), precision="fp32", threads=1) for kind in KINDS}


@settings(max_examples=15, deadline=None)
@given(query=texts, titles=st.lists(texts, min_size=1, max_size=12))
@pytest.mark.parametrize("kind", KINDS)
def test_it_scores_as_the_model_does(
    scorers: dict[str, Scorer],
    models: dict[str, Model],
    kind: str,
    query: str,
    titles: list[str],
) -> None:
    scorer = scorers[kind]
    wanted = score_pairs(models[kind], [query] * len(titles), titles)
    assert scorer.score(query, scorer.prepare(titles)) == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_that_share_calls_score_as_each_alone(scorers: dict[str, Scorer], kind: str) -> None:
    scorer = scorers[kind]
    rng = np.random.default_rng(0)
    jobs = [
        Job(
            query,
            scorer.prepare([" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(n)]),
        )
        for query, n in (("red lamp", 300), ("", 1), ("blue shirt 12v acme", 40))
    ]
    together = scorer.score_jobs(jobs)
    for job, scores in zip(jobs, together, strict=True):
        assert scores.shape == (len(job.titles),)
        assert scores == pytest.approx(scorer.score(job.query, job.titles), abs=CLOSE)


@pytest.mark.parametrize("kind", CROSS)
def test_no_call_of_the_model_is_wider_than_the_budget(
    checkpoints: Callable[[str], Path], kind: str
) -> None:
    model = load(checkpoints(kind))
    seen: list[tuple[int, ...]] = []

    def engine(batches: Any) -> Any:
        return [batch(rows) for rows in batches]

    def batch(rows: Any) -> Any:
        shapes = {values.shape for values in rows.values()}
        assert len(shapes) == 1
        seen.extend(shapes)
        assert set(rows) == set(model.inputs)  # type: ignore[attr-defined]
        return np.zeros(len(rows["input_ids"]), np.float32)

    scorer = CrossScorer(model, "version", "fp32", engine, budget=200)  # type: ignore[arg-type]
    titles = scorer.prepare([" ".join(WORDS * (n % 3)) for n in range(50)])
    scorer.score("red lamp", titles)
    assert len(seen) > 1
    assert sum(rows for rows, _ in seen) == 50
    assert all(rows * width <= 200 or rows <= ROWS for rows, width in seen)
    widths = [width for _, width in seen]
    assert widths == sorted(widths)
    assert BUDGET >= 55


def test_batches_share_the_threads_evenly(checkpoints: Callable[[str], Path]) -> None:
    seen: list[list[int]] = []

    def engine(batches: Any) -> Any:
        found = [np.zeros(len(rows["input_ids"]), np.float32) for rows in batches]
        seen.append([len(scores) for scores in found])
        return found

    scorer = CrossScorer(load(checkpoints("bert")), "version", "fp32", engine, 10_000, at_once=3)  # type: ignore[arg-type]
    for count in (1, 400, 2_000):
        scorer.score("red lamp", scorer.prepare(["lamp " * 20] * count))
    # one row is not worth three threads; 400 make a batch for each, and 2,000 two, but for a rest
    assert seen[0] == [1]
    for sizes, count, batches in ((seen[1], 400, 3), (seen[2], 2_000, 6)):
        assert sum(sizes) == count
        assert max(sizes) < 1.15 * count / batches
        assert len(sizes) <= batches + 1


def test_batches_are_cut_where_padding_is_least() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.choice([7, 8, 31, 32], 400)
    batches = _batches(lengths, 4_096)
    assert sorted(np.concatenate(batches)) == list(range(400))
    # short rows and long ones stay apart, but for those of one block
    assert len(batches) <= 5
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert padded < 1.05 * lengths.sum()
    assert _batches(lengths[:0], 4_096) == []
    # what is larger than the budget goes alone
    assert [len(rows) for rows in _batches(np.full(20, 1_000), 4_096)] == [ROWS, ROWS, 20 % ROWS]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_were_cut_are_told(scorers: dict[str, Scorer], kind: str) -> None:
    scorer = scorers[kind]
    long = " ".join(WORDS * 8)
    assert scorer.prepare(["red lamp", long, ""]).is_cut.tolist() == [False, True, False]
    assert scorer.is_query_cut(long)
    assert not scorer.is_query_cut("red lamp")


def test_lower_precisions_order_pairs_alike(
    scorers: dict[str, Scorer], checkpoints: Callable[[str], Path]
) -> None:
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(200)]
    scorer = scorers["ei_src-terms"]
    plain = scorer.score("red lamp 12v", scorer.prepare(titles))
    if not has_bf16():
        with pytest.raises(ValueError, match="this CPU cannot"):
            open_scorer(checkpoints("ei_src-terms"), precision="bf16")
        pytest.skip("this CPU has no bfloat16")
    half = open_scorer(checkpoints("ei_src-terms"), precision="bf16", threads=1)
    assert half.bits != scorer.bits
    scores = half.score("red lamp 12v", half.prepare(titles))
    assert np.corrcoef(plain, scores)[0, 1] > 0.999


def test_an_unknown_precision_is_refused(checkpoints: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="precision 'fp8': want one of fp32, bf16"):
        open_scorer(checkpoints("bert"), precision="fp8")


def test_probabilities_are_the_checkpoints_own(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load(checkpoints("bert"))
    scores = np.array([-1.0, 0.0, 2.0, np.nan], np.float32)
    plain = open_scorer(checkpoints("bert"), precision="fp32").probabilities(scores)
    assert plain == pytest.approx([0.26894, 0.5, 0.8808, np.nan], abs=1e-4, nan_ok=True)
    model.calibration = Calibration(2.0, -1.0)
    save(model, tmp_path / "calibrated")
    found = open_scorer(tmp_path / "calibrated", precision="fp32").probabilities(scores)
    assert found == pytest.approx([0.18243, 0.26894, 0.5, np.nan], abs=1e-4, nan_ok=True)


def test_words_are_explained_by_their_class(scorers: dict[str, Scorer]) -> None:
    assert scorers["bert"].explain("red kettle") == [("red", ""), ("kettle", "")]
    assert dict(scorers["ei_src-terms"].explain("Zenit red Kettle"))["Kettle"] == "core"


def test_titles_are_taken_and_joined_as_lists_would_be() -> None:
    rows = [[1, 2, 3], [], [4], [5, 6]]
    titles = Titles.of({"ids": rows}, {"ids": np.int32}, [False, True, False, True])

    def lists(some: Titles) -> list[list[int]]:
        ids = some.columns["ids"].tolist()
        return [ids[a:b] for a, b in zip(some.starts, some.starts[1:], strict=False)]

    assert lists(titles) == rows
    taken = titles.take(np.array([3, 0, 0, 1]))
    assert lists(taken) == [[5, 6], [1, 2, 3], [1, 2, 3], []]
    assert taken.is_cut.tolist() == [True, False, False, True]
    assert lists(Titles.joined([taken, titles])) == [*lists(taken), *rows]
    assert len(titles.take(np.array([], np.int64))) == 0


@pytest.fixture(scope="module")
def table(
    clicked_data: Path, checkpoints: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("items") / "table"
    numbers = build_item_table(checkpoints("ei_src-terms"), clicked_data, out)
    assert numbers["items"] > 10
    assert numbers["tokens"] > numbers["items"]
    return out


def test_items_score_as_their_titles_do(
    scorers: dict[str, Scorer], table: Path, clicked_data: Path
) -> None:
    from relevance.data.tables import read_table

    scorer = scorers["ei_src-terms"]
    items = ItemTable(table, scorer)
    products = read_table(clicked_data, "products", ["item_id", "title"]).to_pylist()[::-1]
    rows = items.find([product["item_id"] for product in products])
    assert (rows >= 0).all()
    wanted = scorer.score("red lamp", scorer.prepare([p["title"] for p in products]))
    assert scorer.score("red lamp", items.titles.take(rows)) == pytest.approx(wanted, abs=CLOSE)
    assert [items.ids[row] for row in rows] == [product["item_id"] for product in products]


def test_unknown_items_are_found_out(scorers: dict[str, Scorer], table: Path) -> None:
    items = ItemTable(table, scorers["ei_src-terms"])
    known = items.ids[3]
    found = items.find(["nobody", known, "", "\ud800", known])
    assert found.tolist() == [-1, 3, -1, -1, 3]
    assert items.find([]).tolist() == []


def test_a_hash_alone_makes_no_item(
    scorers: dict[str, Scorer], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = ItemTable(table, scorers["ei_src-terms"])
    known = items.ids[0]
    real = items._keys[np.flatnonzero(items._rows == 0)]
    monkeypatch.setattr("relevance.item_table._hashes", lambda ids: np.repeat(real, len(ids)))
    assert items.find(["somebody else", known]).tolist() == [-1, 0]


def test_a_table_of_another_checkpoint_is_refused(
    scorers: dict[str, Scorer], table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="made for checkpoint"):
        ItemTable(table, scorers["bert"])
    with pytest.raises(FileNotFoundError, match="no item table; make one with `items build`"):
        ItemTable(tmp_path, scorers["bert"])


def test_a_table_is_not_overwritten(
    checkpoints: Callable[[str], Path], clicked_data: Path, table: Path
) -> None:
    with pytest.raises(FileExistsError):
        build_item_table(checkpoints("ei_src-terms"), clicked_data, table)
