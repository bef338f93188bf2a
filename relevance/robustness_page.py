"""The page of the robustness suites: one self-contained HTML file beside the evaluation's."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from relevance.evaluation_page import (
    banner,
    difference_cell,
    document,
    facts_line,
    html_table,
    value_cell,
)


def page(result: Mapping[str, Any]) -> str:
    """HTML of what ``relevance.robustness.robustness`` returns."""
    return document(
        f"Robustness: {result['dataset']}, {result['split']} split",
        [
            _facts(result),
            banner(result),
            "<h2>Suites</h2>",
            "<p class=soft>Share of changed pairs that went where they should, and 95 % interval; "
            "overall is the mean of the suites.</p>",
            _suites(result),
            "<h2>Differences from the lexical baselines</h2>",
            _differences(result),
            "<h2>Changes</h2>",
            "<p class=soft>Share that went where it should. In brackets, the share on the right "
            "side before the change, which the share cannot exceed.</p>",
            _changes(result),
            "<h2>Mean change of score</h2>",
            "<p class=soft>In standard deviations of the model's own scores of the judged pairs, "
            "95 % interval; last the raw change.</p>",
            _moves(result),
            "<h2>What is changed</h2>",
            _examples(result),
            "<h2>Notes</h2>",
            "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in result["notes"]) + "</ul>",
        ],
    )


def _facts(result: Mapping[str, Any]) -> str:
    return facts_line(
        result,
        [
            f"{result['changed']:,} changes of {result['pairs']:,} judged pairs",
            f"{result['queries']:,} queries",
            f"relevant from grade {result['relevant_grade']:g}",
            f"seed {result['seed']}",
        ],
    )


def _suites(result: Mapping[str, Any]) -> str:
    rows = [
        [
            escape(name),
            value_cell(model["overall"]),
            *(value_cell(model["suites"][suite]) for suite in result["suites"]),
            f"{model['noise']:.3f}",
        ]
        for name, model in result["models"].items()
    ]
    return html_table(["model", "overall", *result["suites"], "noise"], rows)


def _differences(result: Mapping[str, Any]) -> str:
    keys = ["overall", *result["suites"]]
    rows = [
        [
            escape(f"{model} − {baseline}"),
            *(difference_cell(found[key], is_higher_better=True) for key in keys),
        ]
        for model, baselines in result["differences"].items()
        for baseline, found in baselines.items()
    ]
    if not rows:
        return "<p>Only the baselines were judged.</p>"
    return "<p class=soft>Paired, 95 % interval; coloured where it excludes 0.</p>" + html_table(
        ["difference", *keys], rows
    )


def _changes(result: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{escape(row['name'])}<small>{escape(row['suite'])}</small>",
            escape(row["direction"]),
            f"{row['pairs']:,} pairs<small>{row['queries']:,} queries</small>",
            *(_share(model["transformations"][row["name"]]) for model in result["models"].values()),
        ]
        for row in result["transformations"]
    ]
    return html_table(["change", "score", "of", *result["models"]], rows)


def _share(share: Mapping[str, Any]) -> str:
    before = share["right_before"]
    return value_cell(share) + (f"<small>({before:.3f})</small>" if before is not None else "")


def _moves(result: Mapping[str, Any]) -> str:
    rows = [
        [
            escape(row["name"]),
            escape(row["direction"]),
            *(_move(model["transformations"][row["name"]]) for model in result["models"].values()),
        ]
        for row in result["transformations"]
    ]
    return html_table(["change", "score", *result["models"]], rows)


def _move(share: Mapping[str, Any]) -> str:
    moved = share["change_sd"]
    if share["change"] is None:
        return "–"
    raw = f"<small>raw {share['change']:+.4g}</small>"
    if moved["value"] is None:
        return f"–{raw}"
    interval = ""
    if moved["low"] is not None:
        interval = f"<small>{moved['low']:+.2f} – {moved['high']:+.2f}</small>"
    return f"{moved['value']:+.2f}{interval}{raw}"


def _examples(result: Mapping[str, Any]) -> str:
    rows: list[list[str | tuple[str, str]]] = []
    for row in result["transformations"]:
        meaning = f"{escape(row['name'])}<small>{escape(row['meaning'])}</small>"
        if row["example"] is None:
            rows.append([meaning, ("no judged pair offers it", "text"), ""])
            continue
        sides = (row["example"]["before"], row["example"]["after"])
        rows.append(
            [
                meaning,
                *(
                    (f"{escape(side['query'])}<small>{escape(side['title'])}</small>", "text")
                    for side in sides
                ),
            ]
        )
    return html_table(["change", "before: query and title", "after"], rows)
