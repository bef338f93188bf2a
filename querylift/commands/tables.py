"""An evaluation in a terminal."""

from __future__ import annotations

import json
from pathlib import Path


def evaluation_text(directory: Path) -> str:
    """The table of an evaluation, a column a model, and what each metric means."""
    from relevance.evaluation import format_table

    evaluation = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    lines = format_table(evaluation).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    # a terminal is narrower than the page this table is made for: turned, without its rule
    columns = list(zip(*(rows[:1] + rows[2:]), strict=True))
    widths = [max(map(len, row)) for row in zip(*columns, strict=True)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in columns
    )
    definitions = "\n".join(f"{k}: {text}" for k, text in evaluation["definitions"].items())
    made = "generated data, " if evaluation["is_generated"] else ""
    head = f"{evaluation['dataset']}: {made}{evaluation['pairs']:,} pairs"
    head += f" of {evaluation['queries']:,} queries"
    split = f"split {evaluation['split']}, 95 % intervals over queries"
    return f"{head}, {split}\n\n{table}\n\n{definitions}"
