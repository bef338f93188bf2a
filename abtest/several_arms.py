"""More than two arms: each against the first, or all pairs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

from abtest.multiplicity import holm
from abtest.stats import Comparison, Estimate, compare

MAX_ARMS = 6


class PairOfArms(NamedTuple):
    """One comparison among several arms."""

    control: str
    treatment: str
    comparison: Comparison
    """At the alpha that Holm's method held this pair to, so that its interval agrees."""
    adjusted_pvalue: float
    """Holm's: significant where it is at most the alpha of the whole family."""


def compare_arms(
    arms: Mapping[str, Estimate],
    alpha: float = 0.05,
    *,
    is_all_pairs: bool = False,
) -> list[PairOfArms]:
    """Two to six arms, each against the first, or all pairs; Holm over the comparisons.

    Raises:
        ValueError: Fewer than two arms or more than six, or what ``compare`` refuses.
    """
    if not 2 <= len(arms) <= MAX_ARMS:
        raise ValueError(f"{len(arms)} arms, want 2 to {MAX_ARMS}: {', '.join(arms)}")
    pairs = list(combinations(arms, 2))
    if not is_all_pairs:
        pairs = pairs[: len(arms) - 1]
    plain = [compare(arms[control], arms[treatment], alpha) for control, treatment in pairs]
    family = holm([comparison.pvalue for comparison in plain], alpha)
    return [
        PairOfArms(control, treatment, compare(arms[control], arms[treatment], level), pvalue)
        for (control, treatment), level, pvalue in zip(
            pairs, family.alphas, family.pvalues, strict=True
        )
    ]
