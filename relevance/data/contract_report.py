"""What the data contract found, as JSON, as a page, and as one line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from relevance.data.expectations import Check, Number, Rows, percent
from relevance.data.facts import Fact, Row

Verdict = Literal["pass", "warn", "block"]

_NAMED = 3
"""Bad rows in the one line; the report has more."""


@dataclass(frozen=True)
class Result:
    """A check, what it saw, and how it went."""

    check: Check
    fact: Fact
    success: bool
    rows: list[Row] = field(default_factory=list)
    """The first bad rows, where it failed."""

    @property
    def verdict(self) -> Verdict:
        """What the check says of the dataset."""
        return "pass" if self.success else self.check.severity

    @property
    def observed(self) -> str:
        """The fact, for people."""
        failing = f"{self.fact.failing:,} {_plural('row', self.fact.failing)}"
        if isinstance(self.check, Number):
            is_share = self.check.low < 1
            return percent(self.fact.observed) if is_share else f"{self.fact.observed:,.0f}"
        if isinstance(self.check, Rows) and self.check.max_share:
            return f"{failing}, {percent(self.fact.observed)}"
        return failing


@dataclass(frozen=True)
class Report:
    """All that was found."""

    name: str
    """Of the dataset or the vocabulary."""
    is_generated: bool | None
    """None: not told."""
    rows: dict[str, int] = field(default_factory=dict)
    """Of each table."""
    results: list[Result] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of the results'."""
        verdicts = {result.verdict for result in self.results}
        return "block" if "block" in verdicts else "warn" if "warn" in verdicts else "pass"

    def of(self, verdict: Verdict) -> list[Result]:
        """Results of one verdict."""
        return [result for result in self.results if result.verdict == verdict]

    def metrics(self) -> dict[str, float]:
        """Counts of rows and checks."""
        return {f"rows_{table}": float(rows) for table, rows in self.rows.items()} | {
            "checks_passed": float(len(self.of("pass"))),
            "checks_warned": float(len(self.of("warn"))),
            "checks_blocked": float(len(self.of("block"))),
        }


def write_report(report: Report, out: Path) -> None:
    """Write ``validation.json`` and ``index.html`` into ``out``."""
    text = json.dumps(_content(report), indent=2, ensure_ascii=False)
    (out / "validation.json").write_text(text + "\n", encoding="utf-8")
    (out / "index.html").write_text(_page(report), encoding="utf-8")


def finding(report: Report, files: Mapping[str, Path], out: Path) -> str:
    """The first check that blocks, with file and rows, in one line."""
    first, *others = report.of("block")
    parts = [f"{files[first.check.table]}: {first.check.name}: want that {first.check.wanted}"]
    if first.rows:
        rows = ", ".join(f"{row.id} (row {row.row})" for row in first.rows[:_NAMED])
        more = ", ..." if first.fact.failing > _NAMED else ""
        parts.append(f"{first.observed} {_plural('fails', first.fact.failing)}: {rows}{more}")
    else:
        parts.append(f"found {first.observed}")
    if others:
        parts.append(
            f"{len(others)} more {_plural('check', len(others))} {_plural('blocks', len(others))}"
        )
    parts.append(f"report: {out / 'index.html'}")
    return "; ".join(parts)


def _content(report: Report) -> dict[str, Any]:
    return {
        "dataset": report.name,
        "is_generated": report.is_generated,
        "verdict": report.verdict,
        "rows": report.rows,
        "checks": [
            {
                "table": result.check.table,
                "check": result.check.name,
                "wanted": result.check.wanted,
                "severity": result.check.severity,
                "success": result.success,
                "observed": result.fact.observed,
                "failing_count": result.fact.failing,
                "rows": [asdict(row) for row in result.rows],
            }
            for result in report.results
        ],
    }


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6875; --line: #d5dce3;
  --paper: #fff; --shade: #f4f6f8; --pass: #0a7a3d; --warn: #8a5a00; --block: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #a2aeba; --line: #37424d;
  --paper: #14191f; --shade: #1c232b; --pass: #5fd08c; --warn: #f0b849; --block: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.soft, th { color: var(--soft); } a { color: inherit; }
.banner { border: 2px solid var(--line); border-radius: 6px; padding: .6rem 1rem; }
.verdict { border-left: 6px solid; border-radius: 4px; padding: .5rem 1rem; font-size: 1.15rem;
  background: var(--shade); }
.pass { color: var(--pass); } .warn { color: var(--warn); } .block { color: var(--block); }
.verdict small { color: var(--ink); display: block; font-size: .95rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-weight: 500; font-size: .9rem; }
td.number, th.number { text-align: right; white-space: nowrap; } td.mark { white-space: nowrap; }
td.value { overflow-wrap: anywhere; }
code { font-size: .9em; } details { margin: .3rem 0 .6rem; } summary { cursor: pointer; }
.bad table { background: var(--shade); }
"""

_MARKS: Mapping[Verdict, str] = {"pass": "✓ passes", "warn": "! warns", "block": "✗ blocks"}

_VERDICTS: Mapping[Verdict, str] = {
    "pass": "Everything passes.",
    "warn": "Fit for training, with warnings.",
    "block": "Blocked: not to be trained on.",
}


def _page(report: Report) -> str:
    title = f"Data contract: {report.name}"
    parts = [f"<h1>{escape(title)}</h1>", _facts(report), _generated(report), _verdict(report)]
    failed = [*report.of("block"), *report.of("warn")]
    if failed:
        parts += ["<h2>What fails</h2>", _table(failed, is_named=True)]
    for table in report.rows:
        results = [result for result in report.results if result.check.table == table]
        rows = report.rows[table]
        parts += [
            f'<h2 id="{table}">{table.capitalize()} '
            f'<span class="soft">{rows:,} {_plural("row", rows)}</span></h2>',
            _table(results, is_named=False),
        ]
    parts.append(
        '<p class="soft">The same results: <a href="data_docs/index.html">Great Expectations data '
        'docs</a>, <a href="validation.json">validation.json</a>.</p>'
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _facts(report: Report) -> str:
    counts = [f'<a href="#{table}">{rows:,} {table}</a>' for table, rows in report.rows.items()]
    return f'<p class="soft">{" · ".join(counts)}</p>'


def _generated(report: Report) -> str:
    if report.is_generated is None:
        return ""
    if report.is_generated:
        return (
            '<p class="banner"><strong>Generated data.</strong> No shopper typed these queries '
            "and no person judged them.</p>"
        )
    return '<p class="soft">Not generated, says its card.</p>'


def _verdict(report: Report) -> str:
    counts = {verdict: len(report.of(verdict)) for verdict in _MARKS}
    return (
        f'<p class="verdict {report.verdict}"><strong>{report.verdict}</strong> · '
        f"{_VERDICTS[report.verdict]}<small>{counts['pass']} checks pass, {counts['warn']} "
        f"{_plural('warns', counts['warn'])}, {counts['block']} "
        f"{_plural('blocks', counts['block'])}.</small></p>"
    )


def _table(results: Iterable[Result], *, is_named: bool) -> str:
    """Table of results; of those that failed, the rows if ``is_named``."""
    head = (
        "<tr><th>result</th><th>table</th><th>expectation</th><th>severity</th>"
        '<th class="number">observed</th></tr>'
    )
    rows = []
    for result in results:
        check = result.check
        observed = result.observed
        if isinstance(check, Rows) and not result.fact.failing:
            observed = "no row"
        rows.append(
            f'<tr><td class="mark {result.verdict}">{_MARKS[result.verdict]}</td>'
            f"<td>{check.table}</td><td>{escape(check.wanted)} "
            f'<code class="soft">{check.name}</code></td><td>{check.severity}</td>'
            f'<td class="number">{observed}</td></tr>'
        )
        if is_named and result.rows:
            rows.append(f'<tr class="bad"><td></td><td colspan="4">{_bad(result)}</td></tr>')
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _bad(result: Result) -> str:
    """The bad rows, unfolded where they block."""
    cells = "".join(
        f'<tr><td class="number">{row.row:,}</td><td class="value">{escape(row.id)}</td>'
        f'<td class="value">{escape(row.value)}</td></tr>'
        for row in result.rows
    )
    shown = len(result.rows)
    summary = (
        f"{shown:,} {_plural('row', shown)}"
        if shown == result.fact.failing
        else f"the first {shown:,} of {result.fact.failing:,} rows"
    )
    is_open = " open" if result.verdict == "block" else ""
    return (
        f"<details{is_open}><summary>{summary}</summary><table><tr><th class=number>row</th>"
        f"<th>id</th><th>value</th></tr>{cells}</table></details>"
    )


def _plural(word: str, count: int) -> str:
    """``row`` or ``rows``; ``fails`` or ``fail``.

    >>> _plural("row", 2), _plural("row", 1), _plural("fails", 2), _plural("fails", 1)
    ('rows', 'row', 'fail', 'fails')
    """
    if word.endswith("s"):
        return word if count == 1 else word[:-1]
    return word if count == 1 else word + "s"
