"""The metrics of an experiment, by name: one line each, and one place that defines them.

A metric is a sum over a sum of user rows (``abtest.user_rows``), or a sum for each user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from abtest.stats import Ratio


@dataclass(frozen=True)
class Metric:
    """What is measured, and which way is better."""

    numerator: str
    """Column of the user rows; ``amount_capped`` is ``amount``, none above the cap."""
    denominator: str | None
    """Column of the user rows; None: users."""
    better: Literal["higher", "lower"]
    unit: str
    definition: str
    """Printed with every result."""
    scale: float = 1.0
    """The value is shown times this."""
    quantile: float | None = None
    """Of rows instead of a sum: the numerator counts rows at or below it."""

    @property
    def ratio(self) -> Ratio:
        """For ``abtest.stats``."""
        return Ratio(self.numerator, self.denominator)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the user rows."""
        return (self.numerator, self.denominator) if self.denominator else (self.numerator,)

    @property
    def covariates(self) -> tuple[Ratio, ...]:
        """The same of the pre-period, where there is such; of what is attributed, all of it.

        Of a mean also who was there at all, so that "was not there" is not "paid nothing".
        """
        plain = (name.removesuffix("_capped").removeprefix("attributed_") for name in self.columns)
        pre = [f"pre_{name}" for name in plain]
        if not set(pre) <= PRE_COLUMNS:
            return ()
        return (Ratio(*pre),) if self.denominator else (Ratio(*pre), Ratio("was_there"))


PRE_COLUMNS = frozenset(
    f"pre_{name}" for name in "impressions clicks carts contacts orders amount".split()
)
CAP = 0.999
"""Quantile of user totals, all arms together, at which ``..._capped`` columns are capped."""

METRICS: Mapping[str, Metric] = {
    "ctr": Metric(
        "clicks", "impressions", "higher", "clicks per impression",
        "clicks within 30 minutes of an impression of the item, over impressions",
    ),
    "clicked": Metric(
        "clicked_impressions", "impressions", "higher", "share of impressions",
        "impressions that were clicked at least once, over impressions",
    ),
    "cvr": Metric(
        "attributed_orders", "clicks", "higher", "orders per click",
        "orders of an item within 24 hours of a click on it, over clicks",
    ),
    "orders_per_impression": Metric(
        "orders", "impressions", "higher", "orders per impression",
        "all orders, over impressions",
    ),
    "contacts_per_click": Metric(
        "contacts", "clicks", "higher", "contacts per click",
        "contacts with a supplier, over clicks",
    ),
    "pay": Metric(
        "amount", None, "higher", "money per user",
        "amount paid, over exposed users; refunds apart",
    ),
    "pay_capped": Metric(
        "amount_capped", None, "higher", "money per user",
        "amount paid, at most the 99.9th percentile of all users, over exposed users",
    ),
    "pay_attributed": Metric(
        "attributed_amount", None, "higher", "money per user",
        "amount paid for orders that follow a click, over exposed users",
    ),
    "earnings_rate": Metric(
        "amount", "impressions", "higher", "money per 1,000 impressions",
        "amount paid, over thousands of impressions", scale=1_000.0,
    ),
    "refunds": Metric(
        "refunds", None, "higher", "money per user",
        "amount paid back, as a negative number, over exposed users",
    ),
    "impressions_per_user": Metric(
        "impressions", None, "higher", "impressions per user",
        "impressions, over exposed users",
    ),
    "zero_result_rate": Metric(
        "zero_result_queries", "queries", "lower", "share of queries",
        "queries without any item to rank, over queries",
    ),
    "fallback_share": Metric(
        "fallbacks", "exposures", "lower", "share of exposures",
        "exposures that another scorer than the variant's answered, over exposures",
    ),
    "latency_p95": Metric(
        "latency_below", "latency_rows", "lower", "milliseconds",
        "95th percentile of the time that the splitter waited for scores", quantile=0.95,
    ),
}  # fmt: skip


def metric(name: str) -> Metric:
    """A metric by name.

    Raises:
        ValueError: There is none.
    """
    if name not in METRICS:
        raise ValueError(f"metric {name!r}: unknown; there are {', '.join(METRICS)}")
    return METRICS[name]
