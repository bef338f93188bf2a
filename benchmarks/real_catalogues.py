"""The pipeline on two real catalogues without clicks, several seeds, with lexical baselines.

    python benchmarks/real_catalogues.py ESCI CHORUS RUNS --seeds 0 1 2

``ESCI`` and ``CHORUS`` are datasets that ``querylift import`` made; ``RUNS`` gets one pipeline run
a seed (a finished one is taken as it is), and the page goes to standard output.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from relevance.bootstrap import Draws, bootstrap
from relevance.metrics import Estimator, ScoredPairs, find

MODELS: Mapping[str, str] = {
    "bm25": "BM25",
    "token-overlap": "token-overlap",
    "dual": "SBERT (MiniLM, 6×384)",
    "teacher": "teacher (MiniLM cross-encoder, 6×384)",
    "student": "student (3×128)",
}
LEXICAL = ("bm25", "token-overlap")
METRICS = ("roc_auc", "spearman", "ndcg@10")
RESAMPLES = 2_000


def run_pipelines(data: Sequence[Path], runs: Path, seeds: Sequence[int]) -> dict[int, float]:
    """Run each seed that is not finished; returns the minutes of those run now."""
    minutes = {}
    for seed in seeds:
        if (runs / f"seed{seed}" / "evaluation" / "scores.parquet").exists():
            continue
        started = time.monotonic()
        command = [sys.executable, "-m", "querylift", "pipeline", "run", "--recipe", "minilm"]
        command += [part for path in data for part in ("--data", str(path))]
        command += ["--set", f"seed={seed}", "--out", str(runs / f"seed{seed}")]
        # a registry a run: a later seed must not be refused for not beating an earlier one
        command += ["--tracking-uri", f"sqlite:///{runs / f'seed{seed}.db'}"]
        subprocess.run(command, check=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})
        minutes[seed] = (time.monotonic() - started) / 60
    return minutes


def mean_of_seeds(scores: Sequence[pd.DataFrame], model: str, metric: str) -> Estimator:
    """Mean over seeds of ``metric``, as a function of how often each query counts."""
    estimators = []
    for frame in scores:
        query, ids = pd.factorize(frame["query_id"], sort=True)
        pairs = ScoredPairs(
            query=query,
            n_queries=len(ids),
            grade=frame["grade"].to_numpy(float),
            score=frame[model].to_numpy(float),
        )
        estimators.append(find(metric).prepare(pairs))
    return lambda counts: np.mean([estimate(counts) for estimate in estimators], axis=0)


def table(scores: Sequence[pd.DataFrame]) -> list[str]:
    """Rows of one set's table: means over seeds with intervals over queries, and the seeds' AUC."""
    estimators = {
        (model, metric): mean_of_seeds(scores, model, metric)
        for model in MODELS
        for metric in METRICS
    }
    queries = scores[0]["query_id"].nunique()
    draws = bootstrap(estimators, np.zeros(queries, int), resamples=RESAMPLES, seed=0)
    lines = [
        "| model | ROC-AUC | each seed | less BM25 | less token-overlap | Spearman | nDCG@10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, name in MODELS.items():
        area = draws[model, "roc_auc"]
        each = ", ".join(
            f"{mean_of_seeds([frame], model, 'roc_auc')(np.ones((1, queries)))[0]:.3f}"
            for frame in scores
        )
        less = [
            "" if model in LEXICAL else show(area - draws[other, "roc_auc"], signed=True)
            for other in LEXICAL
        ]
        rest = [show(draws[model, metric]) for metric in METRICS[1:]]
        seeds = "" if model in LEXICAL else each
        lines.append(f"| {name} | {' | '.join([show(area), seeds, *less, *rest])} |")
    kept = draws["student", "roc_auc"].resampled / draws["teacher", "roc_auc"].resampled
    share = draws["student", "roc_auc"].value / draws["teacher", "roc_auc"].value
    interval = Draws(share, kept).interval()
    lines += [
        "",
        f"The student keeps {100 * share:.1f} % "
        f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}] of the teacher's ROC-AUC.",
    ]
    return lines


def show(draws: Draws, *, signed: bool = False) -> str:
    """A value and its interval."""
    found = draws.interval()
    sign = "+" if signed else ""
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def main() -> None:
    """Run what is missing and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("esci", type=Path)
    parser.add_argument("chorus", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    minutes = run_pipelines([given.esci, given.chorus], given.runs, given.seeds)
    scores = [
        pd.read_parquet(given.runs / f"seed{seed}" / "evaluation" / "scores.parquet")
        for seed in given.seeds
    ]
    for seed, spent in minutes.items():
        print(f"seed {seed}: {spent:.0f} minutes")
    for source in sorted(scores[0]["source"].unique()):
        parts = [frame[frame["source"] == source] for frame in scores]
        pairs, queries = len(parts[0]), parts[0]["query_id"].nunique()
        print(f"\n## {source}: {pairs} pairs of {queries} queries, split valid\n")
        print("\n".join(table(parts)))


if __name__ == "__main__":
    main()
