"""The page of a result: one self-contained HTML file that a product manager can act on."""

from __future__ import annotations

from collections.abc import Iterator

from abtest import report_parts as parts
from abtest import report_words as words
from abtest.markup import Markup, markup, tag
from abtest.model_links import NO_LINKS, Links
from abtest.report_figures import days, forest, looks, segments_forest
from abtest.report_origins import definitions, exposures, funnel, provenance
from abtest.report_words import Word
from abtest.result import Effect, Result

_HEADER = ("Metric", "Control", "Treatment", "Relative effect", "Interval", "p", "Verdict")


def page(result: Result, links: Links = NO_LINKS) -> str:
    """HTML of a result, its models linked to a registry."""
    name = result.subject.name
    return parts.document(
        f"{name}: {words.decided(result)[1]}",
        _header(result),
        _gates(result),
        _metrics(result),
        _over_time(result),
        _since_exposure(result),
        _segments(result),
        _power(result),
        exposures(result),
        funnel(result),
        definitions(result),
        provenance(result, links),
    )


def _header(result: Result) -> Markup:
    tone, word, todo, sentence = words.decided(result)
    verdict = result.verdict
    # a single reason is what the sentence says
    reasons = verdict.reasons if verdict and len(verdict.reasons) > 1 else ()
    return tag(
        "header",
        tag("p", "A/B experiment", class_="eyebrow"),
        tag("h1", result.subject.name),
        tag("p", " · ".join(words.heading(result)), class_="faint"),
        tag(
            "div",
            parts.light(Word(tone, word)),
            tag("p", sentence, class_="say"),
            tag("ul", *(tag("li", reason) for reason in reasons)) if reasons else "",
            tag("p", todo, class_="faint"),
            class_=f"verdict {tone}",
        ),
    )


def _gates(result: Result) -> Markup:
    if not result.gates:
        return markup()
    stopping = sum(gate.status == "stop" for gate in result.gates)
    passed = sum(gate.status == "pass" for gate in result.gates)
    about = f"{passed} of {len(result.gates)} checks are fine"
    forbid = "forbids" if stopping == 1 else "forbid"
    about += f", {stopping} {forbid} a decision." if stopping else "; none forbids a decision."
    lights = (
        tag(
            "li",
            parts.light(Word(tone, f"{words.check(gate)}: {word.lower()}")),
            tag("p", gate.message),
        )
        for gate in result.gates
        for tone, word in [words.GATES[gate.status]]
    )
    return parts.section(
        "gates",
        tag("ul", *lights, class_="gates"),
        parts.details("Thresholds of these checks", parts.facts(words.thresholds(result.rule))),
        title="Can the numbers be believed?",
        about=about,
    )


def _metrics(result: Result) -> Markup:
    bodies = []
    for role, title in words.ROLES.items():
        rows = [_metric_row(result, *found) for found in _effects(result, role)]
        if rows:
            bodies.append([parts.group(title, len(_HEADER)), *rows])
    if not bodies:
        about = "There is nothing to compare; the checks above say why."
        return parts.section("metrics", title="What changed", about=about)
    confidence = words.share(1 - result.alpha)
    return parts.section(
        "metrics",
        parts.table(
            f"Each treatment against {result.subject.control}, with {confidence} intervals",
            _HEADER,
            *bodies,
            kind="wide results",
        ),
        parts.figures(forest(result)),
        parts.details("How to read these numbers", parts.facts(_reading(result))),
        title="What changed",
        about="Each row is a metric. The relative effect says by how much of the control's value "
        "the treatment's differs; the interval says how sure that is.",
    )


def _effects(result: Result, role: str) -> Iterator[tuple[str, str, Effect]]:
    for metric, variants in result.metrics.items():
        if result.definitions[metric].role == role:
            for variant, effect in variants.items():
                yield metric, variant, effect


def _metric_row(result: Result, metric: str, variant: str, effect: Effect) -> Markup:
    definition = result.definitions[metric]
    scale = words.scale(definition, effect.control, effect.treatment)
    name = words.row_name(result, metric, variant)
    pvalue = effect.pvalue if effect.adjusted_pvalue is None else effect.adjusted_pvalue
    alone = "" if effect.adjusted_pvalue is None else f"by itself {words.pvalue(effect.pvalue)}"
    margin = effect.non_inferior.margin if effect.non_inferior else None
    return parts.row(
        _HEADER,
        [
            parts.below(name, words.below_name(definition)),
            scale.value(effect.control),
            scale.value(effect.treatment),
            parts.below(words.relative(effect.rel_effect), scale.difference(effect.effect)),
            parts.below(
                words.relative_interval(effect.rel_ci_low, effect.rel_ci_high),
                "" if margin is None else f"margin {words.share(margin)}",
            ),
            parts.below(words.pvalue(pvalue), alone),
            parts.light(words.judged(effect)),
        ],
    )


def _reading(result: Result) -> Iterator[tuple[str, str]]:
    level, alpha = words.share(1 - result.alpha), words.share(result.alpha)
    control = result.subject.control
    methods = {it.method for of_one in result.metrics.values() for it in of_one.values()}
    yield "Control, treatment", f"The metric's value among users who had {control}, and the others."
    yield (
        "Relative effect",
        "Treatment less control, in percent of the control's value. Below it stands the same "
        "difference in the metric's own unit; that of two percentages is in percentage points: "
        "from 5 % to 6 % is 1 percentage point, and a relative effect of 20 %.",
    )
    yield (
        "Interval",
        f"Effects that agree with the data, at {level}. It excludes 0 % exactly where the "
        "metric's own p-value is at most " + alpha + ".",
    )
    yield (
        "p",
        "How often chance alone would show an effect at least so large. Where several metrics "
        "share the risk of a false alarm, it is raised for that, and the metric's own is below.",
    )
    yield "Better, worse", f"The effect is no chance, at {alpha}, and goes that way."
    yield (
        "Within the margin",
        "The interval ends before the harm that was said to be acceptable. Harm not ruled out: it "
        "does not, though nothing may be wrong.",
    )
    yield "Looks", "; ".join(sorted(words.METHODS[method] for method in methods)) + "."


def _over_time(result: Result) -> Markup:
    if not result.looks:
        return markup()
    others = list(looks(result, ["other"]))
    return parts.section(
        "time",
        parts.figures(looks(result, ["primary", "guardrail"])),
        parts.details("Other metrics, day by day", parts.figures(others)) if others else markup(),
        title="How sure, day by day",
        about=f"The effect of all days so far. {_about_looks(result)}",
    )


def _about_looks(result: Result) -> str:
    if any(look.critical for look in result.looks):
        return (
            "In the shaded area it may be chance, given how often one looks; a line that leaves "
            "the area has shown something."
        )
    methods = {it.method for of_one in result.metrics.values() for it in of_one.values()}
    if methods == {"fixed"}:
        return "Only the last day decides: there is one look."
    return "No day here decides: the first planned look is to come."


def _since_exposure(result: Result) -> Markup:
    if not result.since_exposure:
        return markup()
    return parts.section(
        "days",
        parts.figures(days(result)),
        title="Does it wear off?",
        about="The effect on the first day of a user, the second and so on. Where it falls, what "
        "is new wears off; where it rises, users learn. Each day is one look by itself.",
    )


def _segments(result: Result) -> Markup:
    if not result.segments:
        return markup()
    header = ("Segment", "Users", "Relative effect", "Interval", "p", "Verdict")
    bodies: dict[str, list[Markup]] = {}
    for it in result.segments:
        name = words.row_name(result, it.metric, it.variant)
        rows = bodies.setdefault(name, [parts.group(name, len(header))])
        cells = [
            parts.below(it.value, it.segment),
            f"{it.effect.n_control + it.effect.n_treatment:,}",
            words.relative(it.effect.rel_effect),
            words.relative_interval(it.effect.rel_ci_low, it.effect.rel_ci_high),
            words.pvalue(it.effect.adjusted_pvalue),
            parts.light(words.judged(it.effect)),
        ]
        rows.append(parts.row(header, cells))
    return parts.section(
        "segments",
        parts.figures(segments_forest(result)),
        parts.details(
            "All segments as a table",
            parts.table("Effects among some of the users", header, *bodies.values(), kind="wide"),
        ),
        title="Who is it for?",
        about="The same effects among some of the users. Of many segments a few look special by "
        f"chance: p is raised so that at most {words.share(result.alpha)} of the findings here "
        "are false (Benjamini and Hochberg).",
    )


def _power(result: Result) -> Markup:
    header = ("Metric", "Could have been found", "Was seen", "Users")
    rows = [
        parts.row(
            header,
            [
                words.row_name(result, metric, variant),
                words.relative(effect.mde).lstrip("+") + " or more",
                words.relative(effect.rel_effect),
                f"{effect.n_control:,} and {effect.n_treatment:,}",
            ],
        )
        for metric, variants in result.metrics.items()
        for variant, effect in variants.items()
        if effect.mde is not None
    ]
    if not rows:
        return markup()
    return parts.section(
        "power",
        parts.table("Smallest relative effects", header, rows, kind="wide"),
        title="What could have been found?",
        about="The smallest relative effect, up or down, that so many users show with a chance of "
        f"{words.share(0.8)} at one look. A smaller one may be there unseen.",
    )
