"""A loaded checkpoint answers the same with caches and without, by title and by item."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from relevance.data.tables import read_table
from relevance.item_table import ItemTable, build_item_table
from relevance.scorer import Scorer, open_scorer
from serving.answering import ModelAnswering, open_answering
from serving.answers import ItemTableMissing
from serving.caches import MemoryCache
from serving.limits import Batching
from tests.checkpoints import write_checkpoint

pytestmark = pytest.mark.anyio

TITLES = ["red lamp 12v", "acme kettle", "blue shirt", "", "red lamp 12v", "unknownword " * 60]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def home(clicked_data: Path, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("answering")
    write_checkpoint("ei_src-terms", home / "checkpoint", vocabulary, clicked_data)
    build_item_table(home / "checkpoint", clicked_data, home / "items")
    return home


@pytest.fixture(scope="module")
def scorer(home: Path) -> Scorer:
    return open_scorer(home / "checkpoint", precision="fp32", threads=1)


def opened(scorer: Scorer, items: Path | None, cache: MemoryCache | None) -> ModelAnswering:
    return ModelAnswering(
        scorer,
        model="tiny",
        source="here",
        items=ItemTable(items, scorer) if items else None,
        cache=cache,
        batching=Batching(),
    )


@pytest.fixture
async def answering(
    home: Path, scorer: Scorer, anyio_backend: str
) -> AsyncIterator[ModelAnswering]:
    found = opened(scorer, home / "items", MemoryCache(1_000_000))
    yield found
    await found.close()


async def test_titles_pairs_and_items_get_one_score(
    answering: ModelAnswering, clicked_data: Path
) -> None:
    products = read_table(clicked_data, "products", ["item_id", "title"]).to_pylist()[:20]
    titles = [product["title"] for product in products]
    by_item = await answering.items("red lamp", [product["item_id"] for product in products])
    by_title = await answering.texts("red lamp", titles)
    by_pair = await answering.pairs(["red lamp"] * len(titles), titles)
    assert by_item.scores == pytest.approx(by_title.scores, abs=2e-5)
    assert by_pair.scores.tolist() == by_title.scores.tolist()
    assert len(set(by_title.scores.tolist())) > 5
    assert ((by_title.probabilities > 0) & (by_title.probabilities < 1)).all()


async def test_a_hit_has_the_bits_of_its_miss_and_reads_nothing(answering: ModelAnswering) -> None:
    miss = await answering.texts("red lamp", TITLES)
    hit = await answering.texts("  red   lamp ", TITLES)
    assert hit.scores.tobytes() == miss.scores.tobytes()
    assert miss.tokens > 0
    assert hit.tokens == 0
    part = await answering.texts("red lamp", [*TITLES[:2], "green cable"])
    assert part.scores[:2].tobytes() == miss.scores[:2].tobytes()
    assert 0 < part.tokens < miss.tokens
    other = await answering.texts("blue lamp", TITLES)
    assert other.tokens > 0
    assert other.scores.tobytes() != miss.scores.tobytes()


async def test_without_a_cache_scores_are_the_same(
    home: Path, scorer: Scorer, answering: ModelAnswering
) -> None:
    plain = opened(scorer, home / "items", None)
    wanted = await plain.texts("red lamp", TITLES)
    assert (await plain.texts("red lamp", TITLES)).tokens == wanted.tokens
    found = await answering.texts("red lamp", TITLES)
    assert found.scores == pytest.approx(wanted.scores, abs=2e-5)
    await plain.close()


async def test_items_are_remembered_apart_from_titles_alone(
    answering: ModelAnswering, clicked_data: Path
) -> None:
    ids = read_table(clicked_data, "products", ["item_id"]).column("item_id").to_pylist()[:9]
    first = await answering.items("red lamp", ids)
    again = await answering.items("red lamp", ids[::-1])
    assert again.tokens == 0
    assert again.scores[::-1].tobytes() == first.scores.tobytes()


async def test_unknown_items_are_named_and_the_rest_is_scored(
    answering: ModelAnswering, clicked_data: Path
) -> None:
    known = read_table(clicked_data, "products", ["item_id"]).column("item_id")[0].as_py()
    answer = await answering.items("red lamp", ["nobody", known, "\ud800"])
    assert answer.unknown == (0, 2)
    assert np.isnan(answer.scores).tolist() == [True, False, True]
    assert np.isnan(answer.probabilities).tolist() == [True, False, True]


async def test_texts_that_were_cut_are_counted(answering: ModelAnswering) -> None:
    assert (await answering.texts("red lamp", TITLES)).truncated == 1
    assert (await answering.texts("red lamp " * 40, ["lamp"])).truncated == 1


def test_texts_that_would_be_cut_are_told_before_anything_is_scored(
    answering: ModelAnswering,
) -> None:
    assert answering.cut("red lamp", TITLES) == 1
    assert answering.cut("red lamp " * 40, ["lamp", "lamp " * 100]) == 2


async def test_nothing_asked_is_nothing_answered(answering: ModelAnswering) -> None:
    assert (await answering.texts("red lamp", [])).scores.shape == (0,)
    assert (await answering.items("red lamp", [])).scores.shape == (0,)
    assert (await answering.pairs([], [])).scores.shape == (0,)


async def test_items_want_a_table(scorer: Scorer) -> None:
    found = opened(scorer, None, None)
    with pytest.raises(ItemTableMissing, match="no item table; start it with --items"):
        await found.items("red lamp", ["item"])
    await found.close()


async def test_it_is_warm_once_open_and_says_what_it_is(home: Path) -> None:
    found = await open_answering(
        home / "checkpoint",
        model="tiny",
        source=str(home),
        items=home / "items",
        precision="fp32",
        threads=1,
        cache=MemoryCache(0),
    )
    assert (found.model, found.source, len(found.version)) == ("tiny", str(home), 16)
    assert ("kettle", "core") in found.explain("acme kettle")
    assert len((await found.texts("red lamp", TITLES)).scores) == len(TITLES)
    await found.close()
