"""Pairs a second of our scorer and of what a user would pick instead; prints a markdown table.

Run ``python benchmarks/scoring.py --data DATASET --model CHECKPOINT --out DIR`` with a checkpoint
of the ``bert`` family, which sentence-transformers can open too: the same weights, the same pairs,
the same threads, one round of each in turn. ``DIR`` gets an item table, and keeps it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder

from relevance.data.pairs import judged_pairs
from relevance.data.tables import read_table
from relevance.inference import score_pairs
from relevance.item_table import ItemTable, build_item_table
from relevance.metrics import roc_auc
from relevance.models import load
from relevance.scorer import CrossScorer, Job, Scorer, open_scorer
from serving.answering import ModelAnswering
from serving.batching import Batching
from serving.caches import MemoryCache

ROUNDS = 5
ZIPF = 1.0
"""Exponent of the stream of queries."""

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Way = Callable[[], np.ndarray]
"""Scores all pairs once. [pairs]"""


def main() -> None:
    """Time every way to score the same pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="dataset with judgments")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint of family bert")
    parser.add_argument("--pairs", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--peer",
        type=Path,
        help="a Python that has sentence-transformers with optimum-intel and optimum-onnx, which "
        "want another transformers than we do",
    )
    parser.add_argument("--out", type=Path, required=True, help="where the item table is made")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = _pairs(options)
    queries, titles = list(pairs["query"]), list(pairs["title"])
    wanted = score_pairs(load(options.model), queries, titles)
    ways: dict[str, Way] = {}
    for name, dtype, batch in (
        ("CrossEncoder.predict, as it comes", torch.float32, 32),
        ("CrossEncoder.predict, fp32, batches of 128", torch.float32, 128),
        ("CrossEncoder.predict, bf16, batches of 128", torch.bfloat16, 128),
        ("CrossEncoder.predict, bf16, batches of 512", torch.bfloat16, 512),
    ):
        ways[name] = _cross_encoder(options.model, queries, titles, dtype, batch)
    if options.peer:
        for backend, precision, batch in (
            ("onnx", "fp32", 32),
            ("onnx", "fp32", 128),
            ("openvino", "fp32", 128),
            ("openvino", "bf16", 32),
            ("openvino", "bf16", 128),
            ("openvino", "bf16", 512),
        ):
            name = f"CrossEncoder.predict, {backend} {precision}, batches of {batch}"
            ways[name] = _peer(options, queries, titles, backend, precision, batch)
    for precision in ("fp32", "bf16") if _DEVICE == "cuda" else ("fp32", "bf16", "int8"):
        scorer = open_scorer(options.model, precision=precision, threads=options.threads)
        ways[f"ours from text, {precision}"] = _from_text(scorer, queries, titles)
        ways[f"ours by item id, {precision}"] = _by_item(scorer, options, pairs)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {name: way() for name, way in ways.items()}  # warm
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: len(pairs) / median(times) for name, times in seconds.items()}
    peers = [name for name in rates if name.startswith("CrossEncoder")]
    first, best = rates[peers[0]], max(rates[name] for name in peers)
    relevant = (pairs["grade"] >= 3).to_numpy()
    print(f"{len(pairs):,} pairs of {len(set(queries)):,} queries, {options.threads} threads\n")
    columns = ("way", "pairs/s", "times the first", "times the best peer")
    columns += ("largest difference", "rank correlation", "AUC")
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}")
    for name, rate in rates.items():
        scores = np.asarray(found[name], float)
        print(
            f"| {name} | {rate:,.0f} | {rate / first:.2f} | {rate / best:.2f} | "
            f"{np.abs(scores - wanted).max():.1e} | {spearmanr(scores, wanted)[0]:.5f} | "
            f"{roc_auc(relevant, scores):.4f} |"
        )
    print()
    _candidates(options)
    print()
    _limit(options.model, queries, titles, rates)
    print()
    asyncio.run(_stream(options, first))


def _pairs(options: argparse.Namespace) -> pd.DataFrame:
    """Judged pairs that we do not cut, since the peers would not; repeated if there are too few."""
    pairs = judged_pairs(options.data)
    scorer = open_scorer(options.model, precision="fp32")
    is_cut = scorer.prepare(list(pairs["title"])).is_cut | pairs["query"].map(scorer.is_query_cut)
    pairs = pairs[~is_cut]
    pairs = pd.concat([pairs] * -(-options.pairs // len(pairs)))
    return pairs.head(options.pairs).reset_index(drop=True)


def _cross_encoder(
    model: Path, queries: list[str], titles: list[str], dtype: torch.dtype, batch: int
) -> Way:
    encoder = CrossEncoder(str(model), device=_DEVICE, model_kwargs={"torch_dtype": dtype})
    both = list(zip(queries, titles, strict=True))
    plain = torch.nn.Identity()
    return lambda: np.asarray(
        encoder.predict(both, batch_size=batch, activation_fn=plain, convert_to_tensor=True)
        .float()
        .cpu()
    )


def _peer(
    options: argparse.Namespace,
    queries: list[str],
    titles: list[str],
    backend: str,
    precision: str,
    batch: int,
) -> Way:
    """A CrossEncoder of another process; what passes between the two is not timed there."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    script = Path(__file__).with_name("peer.py")
    command = [options.peer, script, _older(options), backend, precision, batch]
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(list(zip(queries, titles, strict=True))) + "\n")

    def way() -> np.ndarray:
        process.stdin.write("again\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return np.array(json.loads(process.stdout.readline()))  # type: ignore[union-attr]

    return way


def _older(options: argparse.Namespace) -> Path:
    """The checkpoint with a tokenizer class that older transformers know."""
    place: Path = options.out / "older"
    if not place.exists():
        shutil.copytree(options.model, place)
        file = place / "tokenizer_config.json"
        file.write_text(
            json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "BertTokenizerFast"})
        )
    return place


def _jobs(queries: list[str]) -> list[tuple[str, np.ndarray]]:
    """Each query and the places of its pairs."""
    rows = pd.Series(range(len(queries))).groupby(queries, sort=False)
    return [(str(query), places.to_numpy()) for query, places in rows]


def _from_text(scorer: Scorer, queries: list[str], titles: list[str]) -> Way:
    jobs = _jobs(queries)

    def way() -> np.ndarray:
        assert isinstance(scorer, CrossScorer)
        scorer._query.cache_clear()
        prepared = scorer.prepare(titles)
        found = scorer.score_jobs([Job(query, prepared.take(rows)) for query, rows in jobs])
        scores = np.empty(len(titles), np.float32)
        for (_, rows), some in zip(jobs, found, strict=True):
            scores[rows] = some
        return scores

    return way


def _by_item(scorer: Scorer, options: argparse.Namespace, pairs: pd.DataFrame) -> Way:
    table = _table(scorer, options)
    jobs = [(query, list(pairs["item_id"][rows]), rows) for query, rows in _jobs(pairs["query"])]

    def way() -> np.ndarray:
        asked = [Job(query, table.titles.take(table.find(ids))) for query, ids, _ in jobs]
        scores = np.empty(len(pairs), np.float32)
        for (_, _, rows), some in zip(jobs, scorer.score_jobs(asked), strict=True):
            scores[rows] = some
        return scores

    return way


def _table(scorer: Scorer, options: argparse.Namespace) -> ItemTable:
    place = options.out / f"items-{scorer.version}"
    if not place.exists():
        options.out.mkdir(parents=True, exist_ok=True)
        build_item_table(options.model, options.data, place)
    return ItemTable(place, scorer)


def _candidates(options: argparse.Namespace) -> None:
    """Seconds for one query against 4,000 items."""
    rng = np.random.default_rng(0)
    print("| one query, 4,000 items | p50 s | p99 s |\n|---|---:|---:|")
    for precision in ("fp32", "bf16"):
        scorer = open_scorer(options.model, precision=precision, threads=options.threads)
        table = _table(scorer, options)
        ids = table.ids
        times = []
        for number in range(20):
            some = [ids[row] for row in rng.choice(len(ids), min(4_000, len(ids)), replace=False)]
            start = time.perf_counter()
            scorer.score(f"query number {number}", table.titles.take(table.find(some)))
            times.append(time.perf_counter() - start)
        print(f"| {precision} | {np.percentile(times, 50):.3f} | {np.percentile(times, 99):.3f} |")


def _limit(model: Path, queries: list[str], titles: list[str], rates: Mapping[str, float]) -> None:
    """How near the model comes to the machine's matrix products."""
    shape = load(model).network.config
    assert isinstance(shape.hidden_size, int)
    scorer = open_scorer(model, precision="fp32", threads=1)
    prepared = scorer.prepare(titles)
    lengths = np.concatenate(
        [scorer.lengths(Job(query, prepared.take(rows))) for query, rows in _jobs(queries)]
    ).astype(float)
    hidden, inner, layers = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    token = 8 * hidden**2 + 4 * hidden * inner
    whole = lengths * token + 4 * lengths**2 * hidden
    # the last layer: keys and values of all tokens, the rest of [CLS] alone
    last = lengths * 4 * hidden**2 + token + 4 * lengths * hidden
    work = ((layers - 1) * whole + last).mean()
    print(f"{work / 1e6:.1f} MFLOP a pair\n")
    print("| precision | matrix products, GFLOP/s | limit, pairs/s | reached by item id |")
    print("|---|---:|---:|---:|")
    size = 8_192 if _DEVICE == "cuda" else 2_048
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left = torch.randn(size, size, device=_DEVICE, dtype=dtype)
        speeds = []
        for _ in range(10):
            start = time.perf_counter()
            (left @ left).sum().item()
            speeds.append(2 * size**3 / (time.perf_counter() - start))
        limit = max(speeds) / work
        reached = rates[f"ours by item id, {name}"] / limit
        print(f"| {name} | {max(speeds) / 1e9:,.0f} | {limit:,.0f} | {reached:.0%} |")


async def _stream(options: argparse.Namespace, first: float) -> None:
    """Pairs a second of a Zipf stream of queries, each with 200 items, caches warm."""
    queries = read_table(options.data, "queries", ["query"]).column("query").to_pylist()
    scorer = open_scorer(options.model, precision="auto", threads=options.threads)
    table = _table(scorer, options)
    answering = ModelAnswering(
        scorer,
        model="benchmark",
        source=str(options.model),
        items=table,
        cache=MemoryCache(256 * 2**20),
        batching=Batching(),
    )
    rng = np.random.default_rng(0)
    ids, weights = table.ids, 1 / np.arange(1, len(queries) + 1) ** ZIPF
    of_query = [[ids[row] for row in rng.integers(0, len(ids), 200)] for _ in queries]
    stream = rng.choice(len(queries), 2_000, p=weights / weights.sum())
    half = len(stream) // 2
    for number in stream[:half]:
        await answering.items(queries[number], of_query[number])
    start, misses = time.perf_counter(), 0
    for number in stream[half:]:
        misses += (await answering.items(queries[number], of_query[number])).tokens > 0
    rate = half * 200 / (time.perf_counter() - start)
    await answering.close()
    print(
        f"Zipf stream of {len(queries):,} queries, exponent {ZIPF:g}, 200 items each: {rate:,.0f} "
        f"pairs/s, {rate / first:.1f} times CrossEncoder.predict as it comes; "
        f"{1 - misses / half:.0%} of the queries were remembered"
    )


if __name__ == "__main__":
    main()
