"""What a model costs: its size, and its time for a pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from relevance.inference import score_pairs
from relevance.models import load

PRECISION = "fp32"
"""Of all scores and times that are compared."""
TIMED_PAIRS = 256
TIMED_ROUNDS = 5
"""Rounds over all models, after one to warm up; the median counts."""


def measure_cost(checkpoints: Mapping[str, Path], pairs: pd.DataFrame) -> dict[str, Any]:
    """Time checkpoints on the same pairs, interleaved, so that a busy machine slows all alike.

    Returns:
        The settings, and for each model its ``parameters`` and ``microseconds_per_pair``.
    """
    models = {name: load(checkpoint) for name, checkpoint in checkpoints.items()}
    sample = pairs.sample(min(TIMED_PAIRS, len(pairs)), random_state=0)
    queries, titles = list(sample["query"]), list(sample["title"])
    spent: dict[str, list[float]] = {name: [] for name in models}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(1 + TIMED_ROUNDS):
            # another text with the same tokens: a model that remembers texts must not gain by it
            queries, titles = ([text + " " for text in texts] for texts in (queries, titles))
            for name, model in models.items():
                started = time.perf_counter()
                score_pairs(model, queries, titles, precision=PRECISION)
                spent[name].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return {
        "pairs": len(sample),
        "rounds": TIMED_ROUNDS,
        "threads": 1,
        "precision": PRECISION,
        "models": {
            name: {
                "parameters": sum(p.numel() for p in model.parameters()),
                "microseconds_per_pair": 1e6 * statistics.median(spent[name][1:]) / len(sample),
            }
            for name, model in models.items()
        },
    }
