"""``querylift pretrain``, ``finetune`` and ``distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import (
    DEFAULT_RECIPE,
    AsJson,
    Data,
    OutDir,
    RecipeName,
    Settings,
    State,
    check_dataset,
    report,
    resolve,
)

Vocabulary = Annotated[
    Path, typer.Option(help="Tokenizer, as `extend-vocabulary` made it.", metavar="DIR")
]
Terms = Annotated[
    Path | None,
    typer.Option(help="Term classes, as `learn-terms` made them; for `has_terms`.", metavar="DIR"),
]


def pretrain(
    data: Data,
    vocabulary: Vocabulary,
    out: OutDir,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on the shop's own texts."""
    chosen = resolve(recipe, settings)
    from relevance.training.pretrain import pretrain as step

    check_dataset(data)
    report(
        lambda: step(chosen.pretrain, data, vocabulary, out, seed=chosen.seed, state=state),
        as_json=as_json,
    )


def finetune(
    data: Data,
    encoder: Annotated[
        Path, typer.Option(help="Encoder to start from, as `pretrain` made it.", metavar="DIR")
    ],
    out: OutDir,
    model: Annotated[
        str,
        typer.Option(
            help="The recipe's `teacher` (cross-encoder) or `dual` (dual encoder).",
            metavar="NAME",
        ),
    ] = "teacher",
    guide: Annotated[
        Path | None,
        typer.Option(help="Checkpoint whose judgement also labels the weak pairs.", metavar="DIR"),
    ] = None,
    terms: Terms = None,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on weak pairs, then on judgments."""
    chosen = resolve(recipe, settings)
    from relevance.configs import FinetuneConfig
    from relevance.training.finetune import finetune as step

    configs = {k: v for k, v in vars(chosen).items() if isinstance(v, FinetuneConfig)}
    if model not in configs:
        raise ValueError(f"--model {model!r}: unknown; there are {', '.join(configs)}")
    check_dataset(data)
    report(
        lambda: step(
            configs[model],
            data,
            encoder,
            out,
            seed=chosen.seed,
            guide=guide,
            terms=terms,
            state=state,
        ),
        as_json=as_json,
    )


def distill(
    data: Data,
    teacher: Annotated[
        Path, typer.Option(help="Checkpoint to learn from, as `finetune` made it.", metavar="DIR")
    ],
    vocabulary: Vocabulary,
    out: OutDir,
    terms: Terms = None,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Teach a small student what a teacher knows."""
    chosen = resolve(recipe, settings)
    from relevance.training.distill import distill as step

    check_dataset(data)
    report(
        lambda: step(
            chosen.distill,
            data,
            teacher,
            out,
            seed=chosen.seed,
            vocabulary=vocabulary,
            terms=terms,
            state=state,
        ),
        as_json=as_json,
    )
