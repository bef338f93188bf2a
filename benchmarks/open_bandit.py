"""Two policies of a fashion shop: their difference in click-through, and one from the other's log.

Run ``python benchmarks/open_bandit.py FILE``, a Parquet file with ``policy`` (``random``, ``bts``),
``click`` and ``propensity_score`` a row, as in the Open Bandit Dataset (Saito et al. 2021). There
each impression got one of the policies by chance, so here impressions *are* what was randomised.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from abtest.aggregates import Aggregates
from abtest.off_policy import effective_size, inverse_propensity
from abtest.stats import Ratio, compare, estimate, non_inferior


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    table = pq.read_table(parser.parse_args().file)
    policy = table["policy"].to_numpy(zero_copy_only=False).astype(str)
    clicks = table["click"].to_numpy().astype(float)
    chances = table["propensity_score"].to_numpy()
    arms = {
        name: estimate(Aggregates.from_arrays({"clicks": clicks[policy == name]}), Ratio("clicks"))
        for name in ("random", "bts")
    }
    print("| policy | impressions | clicks | click-through |\n|---|---|---|---|")
    for name, arm in arms.items():
        print(f"| {name} | {arm.units:,} | {arm.value * arm.units:,.0f} | {arm.value:.4%} |")
    found = compare(arms["random"], arms["bts"])
    print(
        f"\nbts against random: {found.effect:+.4%} points ({found.ci_low:+.4%} to "
        f"{found.ci_high:+.4%}), relative {found.rel_effect:+.1%} ({found.rel_ci_low:+.1%} to "
        f"{found.rel_ci_high:+.1%}), p = {found.pvalue:.3f}; not worse by 10 %: "
        f"{'yes' if non_inferior(found, 0.1).is_non_inferior else 'not shown'}"
    )
    uniform = float(np.median(chances[policy == "random"]))
    mine = policy == "bts"
    weights = uniform / chances[mine]
    print(
        f"\nrandom from the log of bts: {mine.sum():,} impressions count as "
        f"{effective_size(weights):,.0f}, their {clicks[mine].sum():,.0f} clicks as "
        f"{effective_size(weights * clicks[mine]):,.1f}; weights up to {weights.max():,.0f}"
    )
    try:
        other = inverse_propensity(clicks[mine], chances[mine], uniform).estimate
        print(f"estimate {other.value:.4%}, standard error {other.squared_error**0.5:.4%}")
    except ValueError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main()
