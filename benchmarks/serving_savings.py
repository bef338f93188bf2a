"""What each saving of the ei-SRC paper's Table 1 saves here; prints a markdown table.

Run ``python benchmarks/serving_savings.py --data DATASET --plain CHECKPOINT --words CHECKPOINT``
with two checkpoints of one shape, the second with the shop's words in its vocabulary. Requests
follow the log: queries by how often they were searched, each with the same items every time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from relevance.data.tables import read_table
from relevance.engine import Engine, Rows, cpu_engine
from relevance.models import load
from relevance.models.base import CrossEncoder
from relevance.scorer import CrossScorer, Job
from relevance.titles import Titles, title_hashes
from serving.caches import EMPTY, Group, item_keys, query_key


def main() -> None:
    """Time the same requests with one saving more a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--plain", type=Path, required=True)
    parser.add_argument("--words", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--items", type=int, default=400, help="a request")
    parser.add_argument("--share", type=float, default=0.2, help="of queries, scored in advance")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    titles = read_table(options.data, "products", ["title"]).column("title").to_pylist()
    queries = read_table(options.data, "queries", ["query", "searches"]).to_pandas()
    searches = queries["searches"].fillna(0).to_numpy(float)
    order = np.argsort(-searches, kind="stable")
    known = set(order[: int(options.share * len(order))].tolist())
    asked = rng.choice(len(queries), options.requests, p=searches / searches.sum())
    texts = queries["query"].tolist()
    candidates = {
        number: np.random.default_rng(number).choice(len(titles), options.items, replace=False)
        for number in asked.tolist()
    }
    stream = [(number, texts[number], candidates[number]) for number in asked.tolist()]

    rows = [
        ("fixed length", options.plain, True, False, ""),
        ("+ dynamic length", options.plain, False, False, "-35 %, -36 %"),
        ("+ caches", options.plain, False, True, "-48 %, -41 %"),
        ("+ vocabulary", options.words, False, True, "-54 %, -46 %"),
    ]
    print(f"{len(stream)} requests of {options.items} items, fp32, 1 thread")
    print(f"{len(known):,} of {len(texts):,} queries scored in advance\n")
    columns = ("", "CPU µs a pair", "less", "paper: GPU use, latency")
    columns += ("p50 ms a request", "p99 ms", "tokens a pair")
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}")
    first = 0.0
    for name, checkpoint, is_fixed, has_cache, paper in rows:
        scorer = _scorer(checkpoint, is_fixed=is_fixed)
        prepared = _prepare(scorer, titles)
        answer = _answerer(scorer, prepared, stream, known if has_cache else None)
        for request in stream[:5]:
            answer(*request)
        times, tokens, start = [], 0, time.process_time()
        for request in stream:
            began = time.perf_counter()
            tokens += answer(*request)
            times.append(time.perf_counter() - began)
        pairs = len(stream) * options.items
        cost = 1e6 * (time.process_time() - start) / pairs
        first = first or cost
        p50, p99 = (1e3 * np.percentile(times, q) for q in (50, 99))
        print(
            f"| {name} | {cost:,.0f} | {cost / first - 1:+.0%} | {paper} | {p50:.0f} | {p99:.0f} "
            f"| {tokens / pairs:.1f} |"
        )


def _scorer(checkpoint: Path, *, is_fixed: bool) -> CrossScorer:
    model = load(checkpoint)
    assert isinstance(model, CrossEncoder)
    model.config = replace(model.config, layout="contiguous")
    torch.set_num_threads(1)
    engine = cpu_engine(model, "fp32", 1)
    if is_fixed:
        caps = model.config.max_query_tokens + model.config.max_title_tokens + 3
        engine = _padded(engine, caps, model.tokenizer.pad_token_id)
    return CrossScorer(model, checkpoint.name, "fp32", engine)


def _padded(engine: Engine, width: int, pad: int) -> Engine:
    """As ``engine``, but every row is padded to ``width``, and that many rows fewer fit a call."""

    def wide(rows: Rows) -> Rows:
        missing = width - rows["input_ids"].shape[1]
        return {
            name: np.pad(
                values, ((0, 0), (0, missing)), constant_values=pad if name == "input_ids" else 0
            )
            for name, values in rows.items()
        }

    return lambda batches: engine(map(wide, batches))


def _prepare(scorer: CrossScorer, titles: list[str]) -> Titles:
    chunks = range(0, len(titles), 10_000)
    return Titles.joined([scorer.prepare(titles[at : at + 10_000]) for at in chunks])


def _answerer(
    scorer: CrossScorer,
    prepared: Titles,
    stream: list[tuple[int, str, np.ndarray]],
    known: set[int] | None,
) -> Callable[[int, str, np.ndarray], int]:
    """Answers a request; returns the tokens that the model read for it."""
    hashes = {number: item_keys(title_hashes([f"{i}" for i in rows])) for number, _, rows in stream}
    cache: dict[bytes, Group] = {}
    if known is not None:
        for number, query, rows in stream:
            key = query_key(scorer.bits, query)
            if number in known and key not in cache:
                scores = scorer.score(query, prepared.take(rows))
                cache[key] = EMPTY.add(hashes[number], scores)

    def answer(number: int, query: str, rows: np.ndarray) -> int:
        if known is None:
            # neither are queries remembered
            scorer._query.cache_clear()
            scorer.score(query, prepared.take(rows))
            return int(scorer.lengths(Job(query, prepared.take(rows))).sum())
        key = query_key(scorer.bits, query)
        found = cache.get(key, EMPTY).find(hashes[number])
        wanted = np.flatnonzero(np.isnan(found))
        if not len(wanted):
            return 0
        job = Job(query, prepared.take(rows[wanted]))
        scores = scorer.score_jobs([job])[0]
        cache[key] = cache.get(key, EMPTY).add(hashes[number][wanted], scores)
        return int(scorer.lengths(job).sum())

    return answer


if __name__ == "__main__":
    main()
