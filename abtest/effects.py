"""From the aggregates of arms to effects, each with what allows for looks and for other metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from scipy import stats as distributions

from abtest import confidence_sequences
from abtest.aggregates import Aggregates
from abtest.cuped import cuped
from abtest.group_sequential import sequential_test
from abtest.multiplicity import benjamini_hochberg, holm
from abtest.power import Design, minimal_effect
from abtest.result import Cuped, Definition, Effect, Method, NonInferior, Segment, number
from abtest.stats import (
    Comparison,
    Estimate,
    Ratio,
    compare,
    effective_units,
    estimate,
    intervals,
    non_inferior,
    normal_statistic,
    student_bound,
)

_ALIKE = 1e-6
"""Values of arms, relative to each other, that are one: the root of ``abtest.aggregates.ROUNDING``,
since sums keep squares."""


@dataclass(frozen=True)
class Looks:
    """The looks so far at a running experiment."""

    fractions: tuple[float, ...]
    """Of the planned information, one a look, rising; the last is now. None yet: it is too early
    for a planned look."""
    tuned_units: int
    """Planned users: confidence sequences are tightest there."""
    is_final: bool = False
    """This look ends the experiment."""


@dataclass(frozen=True)
class Arms:
    """The users of every variant, or some of them."""

    aggregates: Mapping[str, Aggregates]
    """Control first."""
    quantiles: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """Metric -> variant -> the quantile of its rows."""

    @property
    def control(self) -> str:
        """The variant that the others are compared with."""
        return next(iter(self.aggregates))

    @property
    def counts(self) -> dict[str, int]:
        """Users of each variant."""
        return {variant: arm.count for variant, arm in self.aggregates.items()}


class Effects(NamedTuple):
    """What could be computed, and what could not."""

    effects: dict[str, dict[str, Effect]]
    """By metric and treatment."""
    refused: dict[str, str]
    """Metric to the reason: no variance, a denominator of 0."""
    constant: frozenset[str]
    """Of these the ones that are the same for all users of all variants."""
    effective_units: dict[str, float]
    """Of each metric in ``effects`` that is a sum, in the arm that has fewest:
    ``abtest.stats.effective_units``."""


class _Bound(NamedTuple):
    """How far a normal statistic is from 0 where it is significant, and the p-value that agrees."""

    method: Method
    bound: float
    pvalue: float


def effects(
    arms: Arms,
    definitions: Mapping[str, Definition],
    alpha: float = 0.05,
    looks: Looks | None = None,
) -> Effects:
    """Every treatment against the control in every metric.

    Primaries share alpha by Holm's method, and so do metrics that are neither primary nor
    guardrail. A guardrail stands alone: all of them must hold, so nothing is gained by chance.

    Args:
        arms: Of the columns that the metrics name.
        definitions: Of the metrics.
        alpha: Two-sided, of each family.
        looks: None: one look, at the end.
    """
    found: dict[str, dict[str, Effect]] = {}
    refused: dict[str, str] = {}
    for metric, definition in definitions.items():
        try:
            found[metric] = _of_metric(metric, definition, arms, alpha, looks)
        except ValueError as error:
            refused[metric] = str(error)
    constant = {m: _constant(m, definitions[m], arms) for m in refused}
    constant = {metric: value for metric, value in constant.items() if value is not None}
    for metric, value in constant.items():
        refused[metric] = f"{value:g} for all users of all variants: nothing to test"
    for role in ("primary", "other"):
        family = {
            (metric, variant): effect
            for metric, by_variant in found.items()
            if definitions[metric].role == role
            for variant, effect in by_variant.items()
        }
        if family:
            adjusted = holm([effect.pvalue for effect in family.values()], alpha).pvalues
            for ((metric, variant), effect), pvalue in zip(family.items(), adjusted, strict=True):
                better = definitions[metric].is_higher_better
                found[metric][variant] = _adjusted(effect, pvalue, alpha, better)
    units = {metric: _effective_units(definitions[metric], arms) for metric in found}
    effective = {metric: value for metric, value in units.items() if value is not None}
    return Effects(found, refused, frozenset(constant), effective)


def segments(
    parts: Mapping[tuple[str, str], Arms],
    definitions: Mapping[str, Definition],
    alpha: float = 0.05,
    looks: Looks | None = None,
) -> tuple[Segment, ...]:
    """Primary metrics among some of the users, Benjamini and Hochberg over all of them.

    Args:
        parts: (column, value) -> its users. One too small to be computed is left out.
        definitions: Of the metrics; those that are not primary are not looked at.
        alpha: Share of findings that may be false.
        looks: As for ``effects``.
    """
    primaries = {m: d for m, d in definitions.items() if d.role == "primary"}
    found = [
        Segment(segment=segment, value=value, metric=metric, variant=variant, effect=effect)
        for (segment, value), arms in parts.items()
        for metric, by_variant in effects(arms, primaries, alpha, looks).effects.items()
        for variant, effect in by_variant.items()
    ]
    if not found:
        return ()
    adjusted = benjamini_hochberg([part.effect.pvalue for part in found], alpha).pvalues
    return tuple(
        Segment(
            segment=part.segment,
            value=part.value,
            metric=part.metric,
            variant=part.variant,
            effect=_adjusted(part.effect, pvalue, alpha, definitions[part.metric].is_higher_better),
        )
        for part, pvalue in zip(found, adjusted, strict=True)
    )


def comparisons(
    metric: str, definition: Definition, arms: Arms, alpha: float
) -> dict[str, Comparison]:
    """Every treatment against the control, at one look.

    Raises:
        ValueError: No variance, a denominator of 0, fewer than two users in an arm.
    """
    quieter = _without_noise(definition, arms)
    used = quieter[0] if quieter else _plain(metric, definition, arms)
    treatments = list(used)[1:]
    return {variant: compare(used[arms.control], used[variant], alpha) for variant in treatments}


def ratio_of(text: str) -> Ratio:
    """A metric or covariate out of ``column`` or ``column/column``.

    Raises:
        ValueError: An empty name, or more than two.

    >>> ratio_of("clicks/impressions")
    Ratio(numerator='clicks', denominator='impressions')
    """
    numerator, slash, denominator = text.partition("/")
    if not numerator or (slash and not denominator) or "/" in denominator:
        raise ValueError(f"{text!r}: want COLUMN or COLUMN/COLUMN")
    return Ratio(numerator, denominator or None)


def _of_metric(
    metric: str, definition: Definition, arms: Arms, alpha: float, looks: Looks | None
) -> dict[str, Effect]:
    plain = _plain(metric, definition, arms)
    quieter = _without_noise(definition, arms)
    found = {}
    for variant, compared in comparisons(metric, definition, arms, alpha).items():
        noise = None
        if quieter:
            before = compare(plain[arms.control], plain[variant], alpha)
            noise = Cuped(
                variance_saved=quieter[1],
                effect=before.effect,
                se=before.std_error,
                pvalue=before.pvalue,
            )
        found[variant] = _effect(compared, definition, _bound(compared, definition, looks), noise)
    return found


def _effective_units(definition: Definition, arms: Arms) -> float | None:
    if definition.probability is not None:
        return None
    ratio = Ratio(definition.numerator, definition.denominator)
    return min(effective_units(arm, ratio) for arm in arms.aggregates.values())


def _constant(metric: str, definition: Definition, arms: Arms) -> float | None:
    """The value that all users of all variants have, if they do."""
    try:
        plain = list(_plain(metric, definition, arms).values())
    except ValueError:
        return None
    first = plain[0].value
    is_it = all(
        not each.variance and math.isclose(each.value, first, rel_tol=_ALIKE) for each in plain
    )
    return first if is_it else None


def _plain(metric: str, definition: Definition, arms: Arms) -> dict[str, Estimate]:
    if definition.probability is not None:
        return dict(arms.quantiles[metric])
    ratio = Ratio(definition.numerator, definition.denominator)
    return {
        variant: _scaled(estimate(arm, ratio), definition.scale)
        for variant, arm in arms.aggregates.items()
    }


def _without_noise(definition: Definition, arms: Arms) -> tuple[dict[str, Estimate], float] | None:
    """By covariates that every arm has something of, with the variance saved; None without any."""
    ratio = Ratio(definition.numerator, definition.denominator)
    covariates = [
        covariate
        for covariate in map(ratio_of, definition.covariates)
        if covariate.denominator is None
        or all(arm.mean(covariate.denominator) for arm in arms.aggregates.values())
    ]
    if not covariates:
        return None
    adjusted = cuped(list(arms.aggregates.values()), ratio, covariates)
    estimates = [_scaled(each, definition.scale) for each in adjusted.estimates]
    return dict(zip(arms.aggregates, estimates, strict=True)), adjusted.variance_saved


def _scaled(measured: Estimate, scale: float) -> Estimate:
    return Estimate(measured.value * scale, measured.variance * scale**2, measured.units)


def _bound(compared: Comparison, definition: Definition, looks: Looks | None) -> _Bound:
    alpha = compared.alpha
    if looks is None:
        return _Bound("fixed", float(distributions.norm.isf(alpha / 2)), compared.pvalue)
    statistic = normal_statistic(compared)
    if definition.role == "guardrail" or not looks.fractions:
        units = compared.control.units + compared.treatment.units
        tuned = looks.tuned_units
        return _Bound(
            "confidence-sequence",
            confidence_sequences.critical(units, tuned, alpha),
            confidence_sequences.always_valid_pvalue(statistic, units, tuned, alpha),
        )
    # what the earlier looks said does not change the interval of this one
    statistics = [0.0] * (len(looks.fractions) - 1) + [statistic]
    test = sequential_test(statistics, looks.fractions, alpha, is_final=looks.is_final)
    return _Bound("group-sequential", test.bound, test.repeated_pvalue)


def _effect(
    compared: Comparison, definition: Definition, at: _Bound, noise: Cuped | None
) -> Effect:
    control, treatment = compared.control, compared.treatment
    reach = intervals(control, treatment, at.bound)
    critical = student_bound(at.bound, compared.df)
    return Effect(
        control=control.value,
        treatment=treatment.value,
        effect=compared.effect,
        se=compared.std_error,
        pvalue=at.pvalue,
        ci_low=reach.ci_low,
        ci_high=reach.ci_high,
        rel_effect=number(compared.rel_effect),
        rel_ci_low=number(reach.rel_ci_low),
        rel_ci_high=number(reach.rel_ci_high),
        n_control=control.units,
        n_treatment=treatment.units,
        method=at.method,
        critical=critical,
        **_verdict(at.pvalue, compared.alpha, compared.effect, definition.is_higher_better),
        mde=_mde(compared),
        non_inferior=_within_margin(compared, definition, critical),
        cuped=noise,
    )


def _verdict(pvalue: float, alpha: float, effect: float, is_higher_better: bool) -> dict[str, bool]:
    is_significant = pvalue <= alpha
    is_up = (effect > 0) == is_higher_better
    return {
        "is_significant": is_significant,
        "is_better": is_significant and is_up,
        "is_worse": is_significant and not is_up,
    }


def _adjusted(effect: Effect, pvalue: float, alpha: float, is_higher_better: bool) -> Effect:
    verdict = _verdict(pvalue, alpha, effect.effect, is_higher_better)
    return msgspec.structs.replace(effect, adjusted_pvalue=pvalue, **verdict)


def _mde(compared: Comparison) -> float | None:
    control, treatment = compared.control, compared.treatment
    units = control.units + treatment.units
    if not control.value or not control.variance or not treatment.variance:
        return None
    design = Design(
        control.variance,
        treatment.variance,
        (control.units / units, treatment.units / units),
        compared.alpha,
    )
    return minimal_effect(design, units) / abs(control.value)


def _within_margin(
    compared: Comparison, definition: Definition, critical: float
) -> NonInferior | None:
    if definition.margin is None:
        return None
    if not compared.control.value:
        return NonInferior(margin=definition.margin, is_non_inferior=False, pvalue=None)
    better = definition.is_higher_better
    found = non_inferior(compared, definition.margin, is_higher_better=better)
    return NonInferior(
        margin=definition.margin,
        is_non_inferior=found.statistic >= critical,
        pvalue=found.pvalue,
    )
