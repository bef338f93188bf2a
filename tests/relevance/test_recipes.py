"""Recipes that are compared differ in what they are about, and in nothing else."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest

from relevance.configs import Recipe
from relevance.recipes import RECIPES, pipeline_config, recipe_config

ROWS = {
    "ablation_bert": set[str](),
    "ablation_vocabulary": {"vocabulary.new_words", "vocabulary.only_strangers"},
    "ablation_drs": {"teacher.layout"},
    "ablation_terms": {"teacher.has_terms"},
    "ablation_at": {"teacher.loss.regulariser"},
    "ablation_cat": {"teacher.loss.regulariser"},
}


def flat(recipe: Recipe) -> dict[str, Any]:
    def walk(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or prefix.endswith("regulariser."):
            return {prefix.rstrip("."): value}
        found = {}
        for name, inner in value.items():
            found |= walk(f"{prefix}{name}.", inner)
        return found

    return walk("", asdict(recipe))


def test_each_row_of_the_ablation_changes_one_part() -> None:
    for before, after in pairwise(ROWS):
        left, right = flat(recipe_config(before)), flat(recipe_config(after))
        assert {key for key in left if left[key] != right[key]} == ROWS[after], after


def test_adversarial_training_is_cat_without_its_divergence() -> None:
    at = recipe_config("ablation_at").teacher.loss.regulariser
    cat = recipe_config("ablation_cat").teacher.loss.regulariser
    assert at.weights == (*cat.weights[:2], 0.0)
    assert at.epsilon == cat.epsilon


def test_every_row_has_the_same_budget_of_steps() -> None:
    budgets = set()
    for name in ROWS:
        teacher = recipe_config(name).teacher
        budgets.add((teacher.stage_a, teacher.stage_b))
    student = recipe_config("ei_src_mini").distill
    assert student.relations.steps == 0
    assert budgets == {(student.logits, student.gold)}


def test_the_student_is_the_last_row_taught_by_the_base() -> None:
    student, row = recipe_config("ei_src_mini"), recipe_config("ablation_cat")
    assert student.distill.loss == row.teacher.loss
    assert student.distill.shape == row.pretrain.shape
    assert student.distill.has_terms
    assert student.distill.layout == row.teacher.layout
    assert student.vocabulary == row.vocabulary
    base = recipe_config("bert_base")
    assert (student.teacher, student.dual, student.pretrain) == (
        base.teacher,
        base.dual,
        base.pretrain,
    )


def test_the_word_drop_row_is_ei_src_with_that_view() -> None:
    row, full = flat(recipe_config("word_drop")), flat(recipe_config("ei_src_mini"))
    assert {key for key in full if full[key] != row[key]} == {"distill.loss.word_drop"}


@pytest.mark.parametrize("name", ["fgm", "pgd", "freelb", "rdrop", "none"])
def test_alternatives_to_cat_get_as_many_forward_passes(name: str) -> None:
    wanted = recipe_config("ablation_cat").teacher
    given = recipe_config(f"regulariser_{name}").teacher
    assert wanted.stage_b.batch_size == given.stage_b.batch_size
    passes = [
        config.stage_b.steps * config.loss.regulariser.forward_passes for config in (wanted, given)
    ]
    # no step is left that would still fit
    assert 0 <= passes[0] - passes[1] < given.loss.regulariser.forward_passes
    assert wanted.stage_a == given.stage_a
    assert wanted.has_terms == given.has_terms


def test_every_recipe_ends_in_a_model_that_it_trains() -> None:
    for name in RECIPES:
        recipe = recipe_config(name)
        config = {"student": recipe.distill, "teacher": recipe.teacher, "dual": recipe.dual}
        chosen = vars(config[recipe.ends_in])
        assert any(getattr(value, "steps", 0) for value in chosen.values()), name


def test_the_pipeline_takes_recipes_that_end_in_a_student_alone() -> None:
    assert pipeline_config("ei_src_mini", ["seed=3"]).seed == 3
    with pytest.raises(ValueError, match="'bert_mini': ends in the teacher, and the pipeline in a"):
        pipeline_config("bert_mini")
    with pytest.raises(ValueError, match="ends in the dual"):
        pipeline_config("smoke", ["ends_in=dual"])
