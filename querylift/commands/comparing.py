"""``querylift compare``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from querylift.commands.options import AsJson, Settings, check_dataset, report, resolve


def compare(
    recipes: Annotated[
        list[str],
        typer.Option(
            help="Recipes to compare, a row each in this order. Repeatable, or with commas.",
            metavar="NAMES",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="Dataset directory. Repeatable: they are joined.", metavar="DIR"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Directory of the comparison. What is there is taken as it is: a killed run "
            "resumes, and a larger one trains what is new.",
            metavar="DIR",
        ),
    ],
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            help="Each recipe is trained with each. Repeatable, or with commas; default: 0,1,2.",
            metavar="N",
        ),
    ] = None,
    settings: Settings = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the judged pairs; default: the recipes' evaluation.split.",
            metavar="NAME",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Row that the others are compared with; default: the first recipe.",
            metavar="NAME",
        ),
    ] = None,
    teacher_seed: Annotated[
        int | None,
        typer.Option(
            help="Students of all seeds share the teacher of this one; default: each its own.",
            metavar="N",
            min=0,
        ),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also change the pairs (typos, stuffed titles, other units) and score them.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train recipes over seeds and judge them side by side."""
    names = _parts(recipes)
    given = [*(settings or []), *([f"evaluation.split={split}"] if split else [])]
    own = _settings(names, given)
    chosen = {}
    for name in names:
        if name in chosen:
            raise ValueError(f"--recipes: {name!r} is given twice")
        chosen[name] = resolve(name, own[name])
    numbers = [_seed(text) for text in _parts(seeds or ["0,1,2"])]
    for path in data:
        check_dataset(path)
    from relevance.comparison import compare as step
    from relevance.comparison import flatten

    found = {}

    def work() -> Mapping[str, float]:
        found.update(
            step(
                chosen,
                numbers,
                data,
                out,
                reference=reference or "",
                teacher_seed=teacher_seed,
                with_robustness=robustness,
                command=shlex.join(["querylift", *sys.argv[1:]]),
                say=_say,
            )
        )
        return flatten(found)

    if as_json:
        report(work, as_json=True)
        return
    work()
    print(_table(found))
    print(f"\npage: {out / 'index.html'}")


def _parts(texts: Sequence[str]) -> list[str]:
    """What was given one by one, or with commas."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _settings(recipes: Sequence[str], settings: Sequence[str]) -> dict[str, list[str]]:
    """Settings of each recipe: those of all, and those of ``NAME,NAME:KEY=VALUE``.

    Raises:
        ValueError: A setting of the seed, or for a recipe that is not compared.
    """
    own: dict[str, list[str]] = {name: [] for name in recipes}
    for setting in settings:
        key, equals, value = setting.partition("=")
        names, colon, key = key.rpartition(":")
        if key.strip() == "seed":
            raise ValueError(f"--set {setting}: each recipe gets every seed of --seeds")
        for name in _parts([names]) if colon else own:
            if name not in own:
                raise ValueError(
                    f"--set {setting}: recipe {name!r} is not compared; there are "
                    f"{', '.join(recipes)}"
                )
            own[name].append(f"{key}{equals}{value}")
    return own


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--seeds {text!r}: want whole numbers, for example 0,1,2") from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _table(comparison: Mapping[str, Any]) -> str:
    """What a terminal is wide enough for: the first metric of the first part."""
    part, reference = comparison["parts"][0], comparison["reference"]
    metric = next(iter(comparison["definitions"]))
    rows = [["model", metric, "", "SD", f"less {reference}", ""]]
    for row, results in part["models"].items():
        less = part["less_reference"].get(row, {}).get(metric)
        spread = results[metric]["sd"]
        rows.append(
            [
                row,
                *_cells(results[metric], ""),
                "" if spread is None else f"{spread:.3f}",
                *(_cells(less, "+") if less else ("", "")),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cells(result: Mapping[str, Any], sign: str) -> tuple[str, str]:
    """A value, and its interval."""
    value, low, high = (result[name] for name in ("value", "low", "high"))
    if value is None:
        return "–", ""
    return f"{value:{sign}.3f}", "" if low is None else f"[{low:{sign}.3f}, {high:{sign}.3f}]"
