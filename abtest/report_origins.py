"""Where a result's numbers are from: users, rows of the log, definitions, files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from abtest import report_parts as parts
from abtest import report_words as words
from abtest.markup import Markup, markup, tag
from abtest.model_links import Links
from abtest.report_figures import exposure_plots
from abtest.result import Result


def exposures(result: Result) -> Markup:
    """Users of each variant, and when they came."""
    ratio, subject = result.sample_ratio, result.subject
    header = ("Variant", "Users", "Share", "Configured", "Difference")
    users = sum(ratio.counts.values())
    rows = []
    for variant, weight in subject.weights.items():
        count = ratio.counts.get(variant, 0)
        share = count / max(users, 1)
        told = (f"{100 * it:.2f}{words.GAP}%" for it in (share, weight))
        cells = [variant, f"{count:,}", *told, words.points(share - weight)]
        rows.append(parts.row(header, cells))
    return parts.section(
        "exposures",
        parts.table("Users of each variant", header, rows, kind="wide"),
        parts.figures(exposure_plots(result)),
        _exposure_table(result),
        title="Who was in it?",
        about="Users are counted on the day they first met a variant. Chance alone would put the "
        f"shares so far from the configured ones with p = {words.pvalue(ratio.pvalue)}; below "
        f"{result.rule.min_sample_ratio_pvalue:g} something is broken, and no effect can be "
        "believed.",
    )


def _exposure_table(result: Result) -> Markup:
    variants = list(result.subject.weights)
    header = ("Day", *(f"new in {name}" for name in variants), "All so far", "Sample ratio p")
    rows = (
        parts.row(
            header,
            [
                words.day(it.day),
                *(f"{it.new.get(name, 0):,}" for name in variants),
                f"{sum(it.total.values()):,}",
                words.pvalue(it.sample_ratio_pvalue),
            ],
        )
        for it in result.exposures
    )
    if not result.exposures:
        return markup()
    caption = "New users by day; p allows for looking every day"
    return parts.details("Every day as a table", parts.table(caption, header, rows, kind="wide"))


def funnel(result: Result) -> Markup:
    """What was dropped of the log, and why."""
    if not result.funnel:
        return markup()
    header = ("Step", "Count")
    bodies = []
    for unit, steps in groupby(result.funnel, lambda it: it.unit):
        found = list(steps)
        most = max(it.count for it in found)
        rows = [parts.group(f"Of {unit}", len(header))]
        for it in found:
            name = parts.below(words.spaced(it.step), it.text)
            drawn = parts.bar(it.count / most) if it.count else markup()
            rows.append(parts.row(header, [markup(name, drawn), f"{it.count:,}"]))
        bodies.append(rows)
    return parts.section(
        "funnel",
        parts.table("From the event log to the users above", header, *bodies),
        title="What was counted, and what was left out",
        about="Every row of the log is either in the numbers above or here, with the reason.",
    )


def definitions(result: Result) -> Markup:
    """What each metric is."""

    def about(name: str) -> Iterator[str]:
        it = result.definitions[name]
        yield it.text
        per = f" / {it.denominator}" if it.denominator else f" per {result.subject.unit}"
        times = f" × {it.scale:,g}" if it.scale != 1 else ""
        yield f"{it.numerator}{per}{times}; {words.below_name(it)}"
        if it.cap is not None:
            yield f"More than {words.scale(it).value(it.cap)} of one user counts as that."
        if it.covariates:
            yield f"Noise taken out by {', '.join(it.covariates)}, from before the experiment."
        for variant, effect in result.metrics.get(name, {}).items():
            if effect.cuped:
                saved = words.share(effect.cuped.variance_saved)
                yield f"{words.row_name(result, name, variant)}: this saved {saved} of variance."

    pairs = ((name, parts.lines(about(name))) for name in result.definitions)
    return parts.section(
        "definitions", parts.facts(pairs), title="What the metrics are", about="As computed here."
    )


def provenance(result: Result, links: Links) -> Markup:
    """What the result was made of."""
    made = result.provenance
    pairs: list[tuple[str, str]] = [("Made", words.instant(made.made_at))]
    if made.config_version is not None:
        pairs.append(("Experiment file", f"version {made.config_version}"))
    if made.config_sha256:
        pairs.append(("its SHA-256", tag("code", made.config_sha256)))
    pairs += [("Data", tag("code", made.data)), ("its SHA-256", tag("code", made.data_sha256))]
    for variant, models in made.model_versions.items():
        told = (
            markup(_model(model, links), f": {count:,} exposures")
            for model, count in models.items()
        )
        pairs.append((f"Models of {variant}", parts.lines(told)))
    packages = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    pairs.append(("Packages", packages))
    return parts.section(
        "provenance",
        tag("pre", tag("code", made.command)),
        parts.facts(pairs),
        title="Where this is from",
        about="The command makes the same result again, from the same file and the same data.",
    )


def _model(model: str, links: Links) -> Markup:
    link = links.get(model)
    if link is None:
        return markup(model)
    return markup(tag("a", f"{link.name} version {link.version}", href=link.url), f", {model}")
