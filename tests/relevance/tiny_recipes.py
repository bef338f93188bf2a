"""Recipes that train in a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relevance.configs import OptimConfig, Recipe, WeakPairsConfig
from relevance.recipes import smoke

STAGE = OptimConfig(steps=2, batch_size=8, lr=1e-3, save_every=1, precision="fp32")
NONE = OptimConfig(steps=0)


def tiny(**changes: Any) -> Recipe:
    """A recipe of a second: two layers, few steps."""
    recipe = smoke()
    weak = WeakPairsConfig(pairs=30, candidates=2)
    tuned: dict[str, Any] = {"stage_a": NONE, "stage_b": STAGE, "guide_weight": 0.0}
    return replace(
        recipe,
        vocabulary=replace(recipe.vocabulary, base_size=200, new_words=5),
        pretrain=replace(recipe.pretrain, optim=STAGE),
        teacher=replace(recipe.teacher, weak=weak, **tuned),
        dual=replace(recipe.dual, weak=weak, **tuned),
        distill=replace(
            recipe.distill,
            has_terms=False,
            weak=weak,
            relations=NONE,
            logits=NONE,
            gold=STAGE,
        ),
        # few of the tiny set's held-out pairs have grade 3
        evaluation=replace(recipe.evaluation, resamples=40, relevant_grade=1),
        **changes,
    )


TEACHER = tiny(ends_in="teacher")
STUDENT = tiny(ends_in="student")
