"""A comparison for people: the same tables in Markdown and in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from statistics import mean
from typing import Any

from relevance.evaluation_page import (
    banner,
    definitions,
    difference_cell,
    document,
    facts,
    forest,
    html_table,
    value_cell,
)


@dataclass(frozen=True)
class Result:
    """A value with its interval, in a cell."""

    numbers: Mapping[str, Any]
    is_difference: bool = False
    is_higher_better: bool = True


Cell = str | Result


@dataclass(frozen=True)
class Table:
    """A table and what it is."""

    title: str
    note: str
    header: list[str]
    rows: list[list[Cell]]


def markdown(comparison: Mapping[str, Any]) -> str:
    """Markdown of what ``relevance.comparison.compare`` returns."""
    lines = [f"# {_title(comparison)}", ""]
    if comparison.get("command"):
        lines += [f"    {comparison['command']}", ""]
    lines += [_how_many(comparison) + "."]
    if comparison.get("is_generated"):
        lines += ["", "**Generated data**: no shopper searched and no person judged here."]
    for part in comparison["parts"]:
        lines += ["", f"## {_name(part)}"]
        for table in _part_tables(comparison, part):
            lines += _markdown_table(table)
    if "robustness" in comparison:
        lines += ["", f"## {_robustness_title(comparison)}"]
        for table in _robustness_tables(comparison):
            lines += _markdown_table(table)
        lines += ["", *(f"- {note}" for note in comparison["robustness"]["notes"])]
    lines += ["", "## Cost"]
    for table in _cost_tables(comparison):
        lines += _markdown_table(table)
    lines += ["", "## Definitions", ""]
    lines += [f"- `{name}`: {text}" for name, text in comparison["definitions"].items()]
    lines += ["", "## Notes", "", *(f"- {note}" for note in comparison["notes"])]
    return "\n".join(lines) + "\n"


def page(comparison: Mapping[str, Any]) -> str:
    """HTML of what ``relevance.comparison.compare`` returns."""
    seeds = ", ".join(map(str, comparison["seeds"]))
    parts = [
        facts(comparison),
        f"<p class=facts>seeds {seeds} · reference {escape(comparison['reference'])}</p>",
        banner(comparison),
    ]
    if comparison.get("command"):
        parts.insert(0, f"<p class=facts><code>{escape(comparison['command'])}</code></p>")
    for part in comparison["parts"]:
        parts += [f"<h2>{escape(_name(part))}</h2>", _plots(comparison, part)]
        parts += [_html_table(table) for table in _part_tables(comparison, part)]
    if "robustness" in comparison:
        parts += [f"<h2>{escape(_robustness_title(comparison))}</h2>"]
        parts += [_html_table(table) for table in _robustness_tables(comparison)]
        parts += [_html_list(comparison["robustness"]["notes"])]
    parts += ["<h2>Cost</h2>", *(_html_table(table) for table in _cost_tables(comparison))]
    parts += ["<h2>Definitions</h2>", definitions(comparison)]
    parts += ["<h2>Notes</h2>", _html_list(comparison["notes"])]
    return document(_title(comparison), parts)


def _title(comparison: Mapping[str, Any]) -> str:
    return f"Comparison: {comparison.get('dataset', 'scores')}, {comparison['split']} split"


def _how_many(comparison: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, comparison["seeds"]))
    return (
        f"{comparison['pairs']:,} judged pairs of {comparison['queries']:,} queries, "
        f"{comparison['relevant']:,} relevant (grade {comparison['relevant_grade']:g} or better); "
        f"seeds {seeds}; reference {comparison['reference']}"
    )


def _name(part: Mapping[str, Any]) -> str:
    names = {"pooled": "Pooled: mean over sources", "all": "All pairs together"}
    name = names.get(part["by"], part["name"])
    return f"{name} ({part['pairs']:,} pairs of {part['queries']:,} queries)"


def _part_tables(comparison: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[Table]:
    metrics = list(comparison["definitions"])
    first, *others = metrics
    higher = comparison["is_higher_better"]
    headers = [name if higher[name] else f"{name} ↓" for name in metrics]
    reference, previous = comparison["reference"], comparison["previous"]

    def less(key: str, row: str, metric: str) -> Cell:
        found = part[key].get(row)
        return Result(found[metric], True, higher[metric]) if found else ""

    yield Table(
        "Models",
        "Mean over seeds, with the 95 % interval over queries; SD is the standard deviation "
        f"over seeds of {first}.",
        ["model", headers[0], "SD", f"less {reference}", "less the row above", *headers[1:]],
        [
            [
                row,
                Result(results[first]),
                _number(results[first]["sd"]),
                less("less_reference", row, first),
                less("less_previous", row, first),
                *(Result(results[metric]) for metric in others),
            ]
            for row, results in part["models"].items()
        ],
    )
    yield Table(
        "Differences",
        "Paired, with the 95 % interval over queries.",
        ["difference", *headers, f"share of {first}"],
        [
            [
                f"{row} − {reference}",
                *(less("less_reference", row, metric) for metric in metrics),
                Result(part["share_of_reference"][row]),
            ]
            for row in part["less_reference"]
        ]
        + [
            [
                f"{row} − {previous[row]}",
                *(less("less_previous", row, metric) for metric in metrics),
                "",
            ]
            for row in part["less_previous"]
            if previous[row] != reference
        ],
    )
    yield Table(
        "Each seed",
        "",
        ["model", "seed", *headers],
        [
            [row, str(seed), *(_number(results[metric]["seeds"][run]) for metric in metrics)]
            for row, results in part["models"].items()
            if row not in comparison["lexical"]
            for run, seed in enumerate(comparison["seeds"])
        ],
    )


def _robustness_title(comparison: Mapping[str, Any]) -> str:
    found = comparison["robustness"]
    return f"Robustness ({found['changed']:,} changes of {found['pairs']:,} judged pairs)"


def _robustness_tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    found, reference = comparison["robustness"], comparison["reference"]
    shares, less, changes = (found[name] for name in ("shares", "less_reference", "changes"))
    suites = [
        ["overall", "", "", f"{found['changed']:,}"],
        *([name, "all", "", f"{about['pairs']:,}"] for name, about in found["suites"].items()),
    ]
    single = [
        [row["name"], row["suite"], row["direction"], f"{row['pairs']:,}"]
        for row in found["transformations"]
    ]
    header = ["change", "suite", "score", "pairs"]
    yield Table(
        "Shares",
        "Share of changed pairs that went where they should: the mean over seeds, with the 95 % "
        "interval over queries. Overall is the mean of the suites.",
        [*header, *shares],
        [[*row, *(Result(shares[model][row[0]]) for model in shares)] for row in suites + single],
    )
    yield Table(
        f"Shares less {reference}",
        "Paired, with the 95 % interval over queries.",
        [*header, *less],
        [[*row, *(Result(less[model][row[0]], True) for model in less)] for row in suites + single],
    )
    yield Table(
        "Mean change of score",
        "In standard deviations of the model's own scores of the judged pairs: the mean over "
        "seeds, with the 95 % interval over queries.",
        [*header, *changes],
        [[*row, *(Result(changes[model][row[0]]) for model in changes)] for row in single],
    )
    yield Table(
        "Overall share, each seed",
        "",
        ["model", *map(str, comparison["seeds"]), "SD"],
        [
            [
                row,
                *(_number(value) for value in of_row["overall"]["seeds"]),
                _number(of_row["overall"]["sd"]),
            ]
            for row, of_row in shares.items()
            if row not in comparison["lexical"]
        ],
    )


def _cost_tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    cost, reference = comparison["cost"], comparison["reference"]
    times = {row: costs["microseconds_per_pair"] for row, costs in cost["models"].items()}
    sizes = {row: costs["parameters"] for row, costs in cost["models"].items()}
    runs: dict[str, list[list[Mapping[str, Any]]]] = {}
    for run in comparison["training"]:
        runs.setdefault(run["recipe"], []).append(run["steps"])
    yield Table(
        "Scoring",
        f"Median of {cost['rounds']} rounds over {cost['pairs']} pairs, models in turn, "
        f"{cost['threads']} thread, {cost['precision']}. A dual encoder encodes each distinct "
        "text once.",
        ["model", "µs a pair", f"times {reference}", "parameters", f"times {reference}"],
        [
            [
                row,
                f"{times[row]:,.0f}",
                _ratio(times, row, reference),
                f"{sizes[row]:,}",
                _ratio(sizes, row, reference),
            ]
            for row in times
        ],
    )
    yield Table(
        "Training",
        "Wall seconds, the mean over seeds, as if nothing were shared; a step that rows or seeds "
        "share was made once. A stage's seconds are those of its optimizer steps. ≥: the time of a "
        "killed run is missing. Peak memory is that of the process so far, earlier steps included.",
        ["model", "step", "seconds", "stage", "examples a second", "peak memory GiB"],
        [row for recipe, seeds in runs.items() for row in _training_rows(recipe, seeds)],
    )


def _training_rows(recipe: str, seeds: list[list[Mapping[str, Any]]]) -> Iterator[list[Cell]]:
    """Rows of one recipe: its steps, each followed by its stages, and their sum."""
    for same in zip(*seeds, strict=True):
        yield [recipe, same[0]["step"], _seconds(same), "", "", ""]
        for stage in _stages(same[0]["numbers"]):
            yield [
                recipe,
                same[0]["step"],
                _mean_of(same, f"{stage}/seconds", 1),
                stage,
                _mean_of(same, f"{stage}/examples_per_second", 0),
                _mean_of(same, f"{stage}/peak_memory_gib", 2),
            ]
    totals = [
        {
            "seconds": sum(step["seconds"] for step in steps),
            "is_resumed": any(step["is_resumed"] for step in steps),
        }
        for steps in seeds
    ]
    yield [recipe, "in all", _seconds(totals), "", "", ""]


def _stages(numbers: Mapping[str, Any]) -> list[str]:
    return [name.removesuffix("/seconds") for name in numbers if name.endswith("/seconds")]


def _seconds(records: Iterable[Mapping[str, Any]]) -> str:
    records = list(records)
    sign = "≥ " if any(record["is_resumed"] for record in records) else ""
    return f"{sign}{mean(record['seconds'] for record in records):,.1f}"


def _mean_of(records: Iterable[Mapping[str, Any]], name: str, digits: int) -> str:
    known = [record["numbers"].get(name) for record in records]
    return f"{mean(known):,.{digits}f}" if None not in known else "–"


def _ratio(values: Mapping[str, float], row: str, reference: str) -> str:
    return f"{values[row] / values[reference]:.2f}" if reference in values else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _html_list(notes: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _plots(comparison: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    drawn = {"models": part["models"], "lexical": comparison["lexical"], "random": {}}
    figures = (
        f"<figure><figcaption>{escape(metric)}</figcaption>{forest(drawn, metric)}</figure>"
        for metric in comparison["definitions"]
    )
    return f"<div class=plots>{''.join(figures)}</div>"


def _html_table(table: Table) -> str:
    rows = ([_html_cell(cell) for cell in row] for row in table.rows)
    note = f"<p class=soft>{escape(table.note)}</p>" if table.note else ""
    return f"<h3>{escape(table.title)}</h3>{note}{html_table(table.header, rows)}"


def _html_cell(cell: Cell) -> str | tuple[str, str]:
    if isinstance(cell, str):
        return escape(cell)
    if cell.is_difference:
        return difference_cell(cell.numbers, cell.is_higher_better)
    return value_cell(cell.numbers)


def _markdown_table(table: Table) -> list[str]:
    rows = [table.header, ["---"] * len(table.header)]
    rows += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    note = [table.note, ""] if table.note else []
    return ["", f"### {table.title}", "", *note, *(f"| {' | '.join(row)} |" for row in rows)]


def _markdown_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    value, low, high = (cell.numbers[name] for name in ("value", "low", "high"))
    sign = "+" if cell.is_difference else ""
    if value is None:
        return "–"
    if low is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
