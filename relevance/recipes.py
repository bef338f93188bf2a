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
    weak = WeakPairsConfig(pairs=200)
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
    """The generated shop on a laptop, from random weights, within six minutes."""
    return smoke()


def minilm() -> Recipe:
    """Real catalogues without clicks: MiniLM as the teacher's encoder."""
    return replace(smoke(), vocabulary=VocabularyConfig(encoder="minilm"))


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
