"""Named configs as functions that ``replace`` one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from relevance.config import override
from relevance.configs import (
    DistillConfig,
    EvaluationConfig,
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    Recipe,
    ShapeConfig,
    VocabularyConfig,
    WeakPairsConfig,
)


def smoke() -> Recipe:
    """Every step in seconds, for tests: the metrics mean nothing."""
    optim = OptimConfig(steps=4, batch_size=16, lr=1e-3, save_every=2)
    weak = WeakPairsConfig(pairs=200, candidates=4)
    finetune = FinetuneConfig(weak=weak, stage_a=optim, stage_b=optim)
    return Recipe(
        vocabulary=VocabularyConfig(base_size=500, new_words=50, min_count=2),
        pretrain=PretrainConfig(shape=ShapeConfig(layers=2, hidden=64, heads=2), optim=optim),
        teacher=finetune,
        dual=replace(finetune, family="sbert"),
        distill=DistillConfig(
            shape=ShapeConfig(layers=1, hidden=32, heads=2),
            weak=weak,
            relations=optim,
            logits=optim,
            gold=optim,
        ),
        evaluation=EvaluationConfig(resamples=50),
    )


def shop() -> Recipe:
    """The generated shop on a laptop, from random weights, within six minutes.

    The teacher is as small as the student and hardly pretrained: in minutes a larger one learns
    nothing, and a little masked-language modelling undoes its start (``docs/experiments.md``).
    """
    return Recipe(
        vocabulary=VocabularyConfig(base_size=4_000, new_words=2_000),
        pretrain=PretrainConfig(
            shape=ShapeConfig(layers=3, hidden=128, heads=4),
            optim=OptimConfig(steps=50, batch_size=64, lr=1e-4),
        ),
        teacher=FinetuneConfig(
            dropout=0.0,
            # a dual encoder of so few steps has nothing to tell
            guide_weight=0.0,
            weak=WeakPairsConfig(pairs=6_000),
            stage_a=OptimConfig(steps=150, batch_size=64, lr=1e-3, save_every=200),
            stage_b=OptimConfig(
                steps=1_300, batch_size=64, lr=1e-3, eval_every=325, save_every=350
            ),
        ),
        dual=FinetuneConfig(
            family="sbert",
            dropout=0.0,
            stage_a=OptimConfig(steps=0),
            stage_b=OptimConfig(steps=150, batch_size=64, lr=1e-3, save_every=200),
        ),
        distill=DistillConfig(
            weak=WeakPairsConfig(pairs=3_000),
            # teacher and student have one shape, and the student's words start as the teacher's
            relations=OptimConfig(steps=0),
            logits=OptimConfig(steps=200, batch_size=64, lr=5e-4, save_every=200),
            gold=OptimConfig(steps=700, batch_size=64, lr=1e-3, eval_every=175, save_every=350),
        ),
    )


def minilm() -> Recipe:
    """Real catalogues without clicks: MiniLM as the teacher's encoder, an hour on two cores.

    No words are added and the encoder is not pretrained further: both cost this sentence encoder
    what it knows (see ``docs/experiments.md``).
    """
    return Recipe(
        vocabulary=VocabularyConfig(encoder="minilm", new_words=0),
        pretrain=PretrainConfig(optim=OptimConfig(steps=0)),
        dual=FinetuneConfig(
            family="sbert",
            dropout=0.0,
            train_words=False,
            stage_a=OptimConfig(steps=0),
            stage_b=OptimConfig(steps=120, lr=2e-5),
        ),
        teacher=FinetuneConfig(
            dropout=0.0,
            train_words=False,
            guide_weight=0.7,
            judged_copies=3,
            weak=WeakPairsConfig(pairs=3_500, negatives=4),
            stage_a=OptimConfig(steps=500, batch_size=64, lr=2e-4),
            stage_b=OptimConfig(steps=90, lr=1e-5, eval_every=30),
        ),
        distill=DistillConfig(
            weak=WeakPairsConfig(pairs=1_500, negatives=4, candidates=20),
            relations=OptimConfig(steps=60, batch_size=64, lr=1e-3),
            logits=OptimConfig(steps=900, batch_size=48, lr=1e-3, save_every=300),
            gold=OptimConfig(steps=120, lr=1e-4, eval_every=40),
        ),
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (smoke, shop, minilm)
}


def recipe_config(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe ``name`` with ``key=value`` overrides.

    Raises:
        ValueError: Unknown recipe, or see ``relevance.config.override``.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: unknown; there are {', '.join(RECIPES)}")
    return override(RECIPES[name](), overrides)
