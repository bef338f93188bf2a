"""The page people look at: one self-contained HTML file of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6875; --line: #d5dce3;
  --paper: #fff; --model: #0b62c4; --lexical: #78838f; --good: #0a7a3d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #a2aeba; --line: #37424d;
  --paper: #14191f; --model: #6fb1ff; --lexical: #97a3af; --good: #5fd08c; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.facts, caption, small, .soft { color: var(--soft); }
.banner { border: 2px solid var(--bad); border-radius: 6px; padding: .6rem 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child, td.text { text-align: left; }
td small { display: block; font-weight: 400; } td.text { white-space: normal; }
td.good { color: var(--good); font-weight: 600; } td.bad { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
a { color: var(--model); }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); } svg .grid { stroke: var(--line); }
svg .random { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .model { stroke: var(--model); fill: var(--model); }
svg .lexical { stroke: var(--lexical); fill: var(--lexical); }
"""

_LABEL_WIDTH, _PLOT_WIDTH, _VALUE_WIDTH, _ROW = 120, 190, 50, 20


def page(evaluation: Mapping[str, Any]) -> str:
    """HTML of what ``relevance.evaluation.evaluate_scores`` returns."""
    title = f"Evaluation: {evaluation.get('dataset', 'scores')}, {evaluation['split']} split"
    parts = [
        facts(evaluation),
        banner(evaluation),
        _link(evaluation),
        "<h2>Metrics</h2>",
        "<p class=soft>Value and 95 % interval.</p>",
        _metrics(evaluation),
        _random(evaluation),
        "<h2>Differences from the lexical baselines</h2>",
        _differences(evaluation),
        "<h2>Intervals</h2>",
        "<p class=soft>Grey: lexical baselines. Dashed: a random order.</p>",
        _plots(evaluation),
        "<h2>Slices</h2>",
        _slices(evaluation),
        "<h2>Definitions</h2>",
        definitions(evaluation),
        "<h2>Notes</h2>",
        "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in evaluation["notes"]) + "</ul>",
    ]
    return document(title, parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page in the style of all of ours; empty parts are left out."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join([f"<h1>{escape(title)}</h1>", *(part for part in parts if part)])
        + "\n</body></html>\n"
    )


def facts(evaluation: Mapping[str, Any]) -> str:
    """How many pairs were judged, and facts on their dataset."""
    counts = [
        f"{evaluation['pairs']:,} pairs of {evaluation['queries']:,} queries",
        f"{evaluation['relevant']:,} relevant (grade {evaluation['relevant_grade']:g} or better)",
    ]
    return facts_line(evaluation, counts)


def facts_line(evaluation: Mapping[str, Any], facts: Iterable[str]) -> str:
    """Facts, then those on the dataset."""
    facts = [*facts]
    if "licence" in evaluation:
        facts.append(f"licence: {evaluation['licence']}")
    if "data_hash" in evaluation:
        facts.append(f"data {evaluation['data_hash'][:12]}")
    return f"<p class=facts>{escape(' · '.join(facts))}</p>"


def banner(evaluation: Mapping[str, Any]) -> str:
    """What a reader of numbers on generated data has to know; empty for other data."""
    if not evaluation.get("is_generated"):
        return ""
    return (
        '<p class="banner"><strong>Generated data.</strong> No shopper searched and no person '
        "judged here: these numbers compare models, they do not promise quality in a real "
        "shop.</p>"
    )


def _link(evaluation: Mapping[str, Any]) -> str:
    if not evaluation.get("has_robustness"):
        return ""
    return '<p><a href="robustness.html">Robustness</a>: what the models do when a pair changes</p>'


def _metrics(evaluation: Mapping[str, Any]) -> str:
    names = list(evaluation["definitions"])
    rows = [
        [escape(model), *(value_cell(metrics[name]) for name in names)]
        for model, metrics in evaluation["models"].items()
    ]
    lower = {name for name in names if not evaluation["is_higher_better"][name]}
    return html_table(["model", *(name + (" ↓" if name in lower else "") for name in names)], rows)


def _random(evaluation: Mapping[str, Any]) -> str:
    known = {name: value for name, value in evaluation["random"].items() if value is not None}
    if not known:
        return ""
    values = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
    return f"<p class=soft>A random order of the same items earns {escape(values)}.</p>"


def _differences(evaluation: Mapping[str, Any]) -> str:
    names = list(evaluation["definitions"])
    rows = [
        [
            escape(f"{model} − {baseline}"),
            *(
                difference_cell(metrics[name], evaluation["is_higher_better"][name])
                for name in names
            ),
        ]
        for model, baselines in evaluation["differences"].items()
        for baseline, metrics in baselines.items()
    ]
    if not rows:
        return "<p>Only the baselines were judged.</p>"
    return "<p class=soft>Paired, 95 % interval; coloured where it excludes 0.</p>" + html_table(
        ["difference", *names], rows
    )


def _plots(evaluation: Mapping[str, Any]) -> str:
    figures = (
        f"<figure><figcaption>{escape(name)}</figcaption>{forest(evaluation, name)}</figure>"
        for name in evaluation["definitions"]
    )
    return f"<div class=plots>{''.join(figures)}</div>"


def forest(evaluation: Mapping[str, Any], metric: str) -> str:
    """Plain SVG: a row per model, dot and interval on one axis."""
    results = {model: metrics[metric] for model, metrics in evaluation["models"].items()}
    random = evaluation["random"].get(metric)
    numbers = [r[key] for r in results.values() for key in ("value", "low", "high")] + [random]
    known = [number for number in numbers if number is not None]
    if not known:
        return "<p class=soft>undefined</p>"
    ticks = _ticks(min(known), max(known))
    low, high = ticks[0], ticks[-1]

    def x(number: float) -> float:
        return round(_LABEL_WIDTH + _PLOT_WIDTH * (number - low) / (high - low), 1)

    bottom = _ROW * len(results) + 6
    width = _LABEL_WIDTH + _PLOT_WIDTH + _VALUE_WIDTH
    marks = [
        f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="0" y2="{bottom}"/>'
        f'<text class="tick" x="{x(t)}" y="{bottom + 13}" text-anchor="middle">{t:g}</text>'
        for t in ticks
    ]
    if random is not None:
        marks.append(
            f'<line class="random" x1="{x(random)}" x2="{x(random)}" y1="0" y2="{bottom}"/>'
        )
    for row, (model, result) in enumerate(results.items()):
        y = _ROW * row + 12
        kind = "lexical" if model in evaluation["lexical"] else "model"
        label = model if len(model) <= 18 else model[:17] + "…"
        marks.append(f"<text x=0 y={y + 4}>{escape(label)}<title>{escape(model)}</title></text>")
        if result["value"] is None:
            continue
        if result["low"] is not None:
            marks.append(
                f'<line class="{kind}" stroke-width="2" x1="{x(result["low"])}" '
                f'x2="{x(result["high"])}" y1="{y}" y2="{y}"/>'
            )
        marks.append(f'<circle class="{kind}" cx="{x(result["value"])}" cy="{y}" r="3.5"/>')
        marks.append(
            f'<text x="{width}" y="{y + 4}" text-anchor="end">{result["value"]:.3f}</text>'
        )
    return (
        f'<svg viewBox="0 0 {width} {bottom + 18}" role="img" '
        f'aria-label="{escape(metric)} of every model with interval">{"".join(marks)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that enclose ``low`` to ``high``."""
    span = max(high - low, 1e-3)
    step = 10 ** math.floor(math.log10(span / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [round(step * i, 10) for i in range(first, last + 1)]


def _slices(evaluation: Mapping[str, Any]) -> str:
    models = list(evaluation["models"])
    rows = []
    for part in evaluation["slices"]:
        if "skipped_because" in part:
            cells = [f"<small>{escape(part['skipped_because'])}</small>"] * len(models)
        else:
            cells = [value_cell(part["models"][model]) for model in models]
        rows.append(
            [
                f"<small>{escape(part['by'])}</small> {escape(part['name'])}",
                *(f"{part[key]:,}" for key in ("pairs", "queries", "relevant")),
                *cells,
            ]
        )
    metric = next((part["metric"] for part in evaluation["slices"]), "")
    return f"<p class=soft>{escape(metric)} with its 95 % interval.</p>" + html_table(
        ["slice", "pairs", "queries", "relevant", *models], rows
    )


def definitions(evaluation: Mapping[str, Any]) -> str:
    """Table of what each metric is."""
    rows = (
        f"<tr><td>{escape(name)}</td><td class=text>{escape(text)}</td></tr>"
        for name, text in evaluation["definitions"].items()
    )
    return f"<table>{''.join(rows)}</table>"


def value_cell(result: Mapping[str, Any]) -> str:
    """Cell of a value, above its interval."""
    if result["value"] is None:
        return "–"
    if result["low"] is None:
        return f"{result['value']:.3f}"
    return f"{result['value']:.3f}<small>{result['low']:.3f} – {result['high']:.3f}</small>"


def difference_cell(result: Mapping[str, Any], is_higher_better: bool) -> str | tuple[str, str]:
    """Cell of a difference, with its class where the interval excludes 0."""
    if result["value"] is None:
        return "–"
    if result["low"] is None:
        return f"{result['value']:+.3f}"
    text = f"{result['value']:+.3f}<small>{result['low']:+.3f} – {result['high']:+.3f}</small>"
    if result["low"] <= 0 <= result["high"]:
        return text
    is_better = (result["low"] > 0) == is_higher_better
    return text, "good" if is_better else "bad"


def html_table(header: Iterable[str], rows: Iterable[Iterable[str | tuple[str, str]]]) -> str:
    """Table of cells that are HTML, or HTML and its class."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _cell(cell: str | tuple[str, str]) -> str:
    if isinstance(cell, tuple):
        html, kind = cell
        return f'<td class="{kind}">{html}</td>'
    return f"<td>{cell}</td>"
