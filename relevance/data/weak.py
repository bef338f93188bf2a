"""Weak pairs: from clicks where a dataset has them, else from its catalogue."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from relevance.configs import WeakPairsConfig
from relevance.data.catalogue import catalogue_pairs
from relevance.data.clicks import click_pairs
from relevance.data.tables import has_table


def weak_pairs(config: WeakPairsConfig, data: Path, *, seed: int) -> pd.DataFrame:
    """Columns query_id, query, item_id, title, label; see the two sources."""
    source = click_pairs if has_table(data, "events") else catalogue_pairs
    return source(config, data, seed=seed)
