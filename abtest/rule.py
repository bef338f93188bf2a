"""The thresholds of a decision: how sure one wants to be, and what must hold before that."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Share = Annotated[float, Meta(gt=0, lt=1)]


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold before numbers are believed, and how sure one wants to be."""

    alpha: Annotated[Share, Meta(description="Two-sided, of each family of tests.")] = 0.05
    min_days: Annotated[int, Meta(ge=1, description="Full days before anything is decided.")] = 7
    """Shoppers of a Sunday are not those of a Monday."""
    min_sample_ratio_pvalue: Annotated[
        Share, Meta(description="Below it users are not as the weights say.")
    ] = 0.001
    max_crossover: Annotated[
        Share, Meta(description="Share of users who met more than one variant.")
    ] = 0.01
    max_stale_hours: Annotated[
        float,
        Meta(gt=0, le=8_760, description="From the last event to the end of what is looked at."),
    ] = 24.0
    max_dropped: Annotated[
        Share, Meta(description="Share of events that are duplicates, late or of bots.")
    ] = 0.01
    """More is worth a look."""
    min_users: Annotated[int, Meta(ge=2, description="In each arm; fewer are worth a look.")] = 100
    """Below, effects are not normal."""
    min_effective_units: Annotated[
        float,
        Meta(ge=2, description="In each arm, of a metric that decides; below, harm stops nothing."),
    ] = 100.0
    """See ``abtest.stats.effective_units``. Lognormal amounts of one user in twenty reject 14 % of
    the time with 4 of them in the smaller arm of 90 to 10, 7 % with 30, 6 % with 100."""
