"""How models are timed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from relevance import cost


def test_no_round_of_timing_sees_a_text_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def record(_: Any, queries: list[str], titles: list[str], **named: Any) -> None:
        seen.append((*queries, *titles))

    monkeypatch.setattr(cost, "load", lambda _: torch.nn.Linear(1, 1))
    monkeypatch.setattr(cost, "score_pairs", record)
    pairs = pd.DataFrame({"query": ["lamp", "red lamp"], "title": ["a lamp", "a red lamp"]})
    cost.measure_cost({"model": Path("model")}, pairs)
    assert len(seen) == 1 + cost.TIMED_ROUNDS
    assert all(set(a).isdisjoint(b) for a, b in itertools.combinations(seen, 2))
    assert len({tuple(map(str.strip, texts)) for texts in seen}) == 1
