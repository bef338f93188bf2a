"""A result as files for people and for spreadsheets: HTML, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from abtest import report_words as words
from abtest.model_links import NO_LINKS, Links
from abtest.report_page import page
from abtest.result import Effect, Result, to_json

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~!])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def report(result: Result, links: Links = NO_LINKS) -> Mapping[str, str]:
    """Files of a report: name to text, the JSON last, since who lists reports looks for it.

    Args:
        result: What is told.
        links: Of the models in a registry.
    """
    name = report_name(result)
    return {
        f"{name}.html": page(result, links),
        f"{name}.md": markdown(result, links),
        f"{name}.csv": table(result),
        f"{name}.json": to_json(result) + "\n",
    }


def report_name(result: Result) -> str:
    """Name of the report's files, without their endings: that of the experiment and its phase."""
    name = _NOT_IN_NAMES.sub("-", result.subject.name).lstrip(".-")[:100] or "report"
    phase = result.subject.phase
    return name if phase is None else f"{name}-phase-{phase}"


def table(result: Result) -> str:
    """CSV with a row for each metric and treatment, among all users and in each segment."""
    text = io.StringIO()
    rows = list(_rows(result))
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    found = [
        (metric, variant, "", "", effect)
        for metric, variants in result.metrics.items()
        for variant, effect in variants.items()
    ]
    found += [(it.metric, it.variant, it.segment, it.value, it.effect) for it in result.segments]
    for metric, variant, segment, value, effect in found:
        definition = result.definitions[metric]
        yield {
            "experiment": result.subject.name,
            "phase": result.subject.phase,
            "metric": metric,
            "role": definition.role,
            "unit": definition.unit,
            "variant": variant,
            "segment": segment,
            "value": value,
            **_numbers(effect),
            "verdict": words.judged(effect).text,
        }


def _numbers(effect: Effect) -> dict[str, Any]:
    flat = msgspec.structs.asdict(effect)
    margin, cuped = flat.pop("non_inferior"), flat.pop("cuped")
    return {
        **flat,
        "margin": margin and margin.margin,
        "is_non_inferior": margin and margin.is_non_inferior,
        "variance_saved": cuped and cuped.variance_saved,
    }


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def markdown(result: Result, links: Links = NO_LINKS) -> str:
    """The verdict, the gates, the metrics and where they are from."""
    _, word, todo, sentence = words.decided(result)
    made = result.provenance
    lines = [f"# {_plain(result.subject.name)}", "", _plain(" · ".join(words.heading(result)))]
    lines += ["", f"**{word}.** {_plain(sentence)}", ""]
    lines += [
        f"- {_plain(reason)}" for reason in (result.verdict.reasons if result.verdict else ())
    ]
    lines += ["", todo, "", "## Checks", ""]
    lines += [
        f"- {_plain(words.check(gate))}: {word.lower()}. {_plain(gate.message)}"
        for gate in result.gates
        for _, word in [words.GATES[gate.status]]
    ]
    lines += ["", "## Metrics", "", f"Intervals hold with {words.share(1 - result.alpha)}.", ""]
    lines += _markdown_table(
        ["metric", "role", "control", "treatment", "relative effect", "interval", "p", "verdict"],
        (
            _metric_row(result, metric, variant, effect)
            for metric, variants in result.metrics.items()
            for variant, effect in variants.items()
        ),
    )
    if result.segments:
        lines += ["", "## Segments", "", "p by Benjamini and Hochberg over all of them.", ""]
        lines += _markdown_table(
            ["segment", "metric", "relative effect", "interval", "p", "verdict"],
            (
                [
                    f"{it.segment} {it.value}",
                    words.row_name(result, it.metric, it.variant),
                    *_effect_cells(it.effect),
                ]
                for it in result.segments
            ),
        )
    if result.funnel:
        lines += ["", "## What was counted, and what was left out", ""]
        lines += _markdown_table(
            ["step", "count", "of"],
            ([it.text, f"{it.count:,}", it.unit] for it in result.funnel),
        )
    lines += ["", "## What the metrics are", ""]
    lines += [f"- {_plain(name)}: {_plain(it.text)}" for name, it in result.definitions.items()]
    lines += ["", "## Where this is from", "", *_indented(made.command), ""]
    lines += [
        f"- data: {_plain(made.data)}, SHA-256 {_plain(made.data_sha256)}",
        f"- experiment file: version {made.config_version}, SHA-256 {made.config_sha256}",
        *(f"- {line}" for line in _models(made.model_versions, links)),
        f"- made: {words.instant(made.made_at)}",
    ]
    return "\n".join(lines) + "\n"


def _models(versions: Mapping[str, Mapping[str, int]], links: Links) -> Iterator[str]:
    for variant, models in versions.items():
        for model, count in models.items():
            told = _plain(model)
            if link := links.get(model):
                told = f"[{_plain(link.name)} version {link.version}]({link.url}), {told}"
            yield f"model of {_plain(variant)}: {told}, {count:,} exposures"


def _metric_row(result: Result, metric: str, variant: str, effect: Effect) -> list[str]:
    definition = result.definitions[metric]
    scale = words.scale(definition, effect.control, effect.treatment)
    return [
        words.row_name(result, metric, variant),
        definition.role,
        scale.value(effect.control),
        scale.value(effect.treatment),
        *_effect_cells(effect),
    ]


def _effect_cells(effect: Effect) -> list[str]:
    pvalue = effect.pvalue if effect.adjusted_pvalue is None else effect.adjusted_pvalue
    return [
        words.relative(effect.rel_effect),
        words.relative_interval(effect.rel_ci_low, effect.rel_ci_high),
        words.pvalue(pvalue),
        words.judged(effect).text,
    ]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(map(_plain, row))} |" for row in rows),
    ]


def _plain(text: str) -> str:
    """Text that means nothing in Markdown, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
