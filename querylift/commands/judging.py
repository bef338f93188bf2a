"""``querylift evaluate``, ``register`` and ``score``."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from querylift.commands.options import (
    DEFAULT_RECIPE,
    DEFAULT_TRACKING_URI,
    AsJson,
    Data,
    RecipeName,
    Settings,
    TrackingUri,
    check_dataset,
    report,
    resolve,
)
from querylift.commands.tables import evaluation_text

if TYPE_CHECKING:
    from querylift.pair_files import Scores

Checkpoint = Annotated[
    Path, typer.Argument(help="Checkpoint directory, as `finetune` and `distill` make it.")
]


def evaluate(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            help="Checkpoint directories; NAME=DIR names one in the table.", metavar="CHECKPOINT"
        ),
    ],
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(
            help="New directory for the HTML page, the scores and the JSON.", metavar="DIR"
        ),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also change the pairs (typos, stuffed titles, other units) and score them.",
        ),
    ] = False,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Judge checkpoints beside lexical baselines."""
    chosen = resolve(recipe, settings).evaluation
    from relevance.evaluation import evaluate as step
    from relevance.robustness_tables import format_table

    named = _named(checkpoints)
    check_dataset(data)
    with tempfile.TemporaryDirectory() as scratch:
        target = out or Path(scratch) / "evaluation"

        def judge() -> dict[str, float]:
            return step(chosen, data, named, target, with_robustness=robustness)

        if as_json:
            report(judge, as_json=True)
        else:
            judge()
            print(evaluation_text(target))
            if robustness:
                result = json.loads((target / "robustness.json").read_text(encoding="utf-8"))
                print(f"\n{format_table(result)}")
    if out and not as_json:
        print(f"\npage: {out / 'index.html'}")
        if robustness:
            print(f"page: {out / 'robustness.html'}")


def _named(checkpoints: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by the name given, else by their directory's."""
    named: dict[str, Path] = {}
    for text in checkpoints:
        name, equals, directory = text.partition("=")
        path = Path(directory if equals else text)
        name = name if equals else path.resolve().name
        if name in named:
            raise ValueError(
                f"{path}: a checkpoint named {name!r} is given already; "
                f"give each its own name, for example {name}-2={path}"
            )
        named[name] = path
    return named


def register(
    checkpoint: Checkpoint,
    data: Data,
    evaluation: Annotated[
        Path,
        typer.Option(help="What `evaluate` wrote for this checkpoint.", metavar="DIR"),
    ],
    tracking_uri: TrackingUri = DEFAULT_TRACKING_URI,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Register a checkpoint that beats the champion."""
    chosen = resolve(recipe, settings)
    from relevance.registry import register as step

    check_dataset(data)
    scores = evaluation / "scores.parquet"
    if not scores.is_file():
        raise FileNotFoundError(f"{scores}: missing; make it with `querylift evaluate --out`")
    report(
        lambda: step(chosen.register, checkpoint, data, evaluation, tracking_uri=tracking_uri),
        as_json=as_json,
    )


def score(
    checkpoint: Checkpoint,
    pairs: Annotated[
        Path,
        typer.Option(
            help="Parquet, CSV, TSV or JSONL file with `query` and `title` columns.", metavar="FILE"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="New file of the same format: the rows with `score` and `probability` added.",
            metavar="FILE",
        ),
    ],
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16: faster where the processor has it.", metavar="NAME")
    ] = "fp32",
) -> None:
    """Score the query-title pairs of a file."""
    from querylift.pair_files import score_file

    if precision not in ("fp32", "bf16"):
        raise ValueError(f"--precision {precision!r}: want fp32 or bf16")

    @functools.cache
    def model() -> Any:
        from relevance.inference import load_scorer

        return load_scorer(checkpoint)

    def scores(queries: Sequence[str], titles: Sequence[str]) -> Scores:
        from relevance.calibration import Calibration
        from relevance.inference import score_pairs

        raw = score_pairs(model(), queries, titles, precision=precision)
        # without any, the score is the logit of the grade's share
        return raw, (model().calibration or Calibration()).probability(raw)

    rows = score_file(scores, pairs, out)
    print(f"{rows:,} pairs scored into {out}")
