"""What a recipe trains, and what it shares with others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from relevance.configs import Recipe
from relevance.plan import chain
from tests.relevance.tiny_recipes import NONE, STAGE, STUDENT, TEACHER, tiny


def names(recipe: Recipe) -> list[str]:
    return [step.name for step in chain(recipe, Path("data"), "digest", Path("out"))]


def places(recipe: Recipe) -> dict[str, str]:
    return {s.name: s.place.name for s in chain(recipe, Path("data"), "digest", Path("out"))}


def test_a_recipe_is_trained_as_far_as_what_it_ends_in() -> None:
    assert names(tiny(ends_in="dual")) == ["extend-vocabulary", "pretrain", "finetune-dual"]
    assert names(TEACHER) == ["extend-vocabulary", "pretrain", "finetune-teacher"]
    assert names(STUDENT) == [*names(TEACHER), "make-lessons", "distill"]


def test_a_teacher_with_a_guide_waits_for_the_dual_encoder() -> None:
    guided = replace(TEACHER.teacher, guide_weight=0.5, stage_a=STAGE)
    steps = chain(replace(TEACHER, teacher=guided), Path("data"), "digest", Path("out"))
    dual, teacher = steps[-2:]
    assert dual.name == "finetune-dual"
    assert dual in teacher.inputs
    # only stage A asks the guide
    assert names(replace(TEACHER, teacher=replace(guided, stage_a=NONE))) == names(TEACHER)


def test_terms_are_learnt_where_a_trained_model_asks_for_them() -> None:
    asking = replace(STUDENT.distill, has_terms=True)
    student = replace(STUDENT, distill=asking)
    steps = chain(student, Path("data"), "digest", Path("out"))
    terms = next(step for step in steps if step.name == "learn-terms")
    assert terms in steps[-1].inputs
    assert "learn-terms" not in names(replace(student, ends_in="teacher"))
    assert places(student)["finetune-teacher"] == places(STUDENT)["finetune-teacher"]


def test_a_fingerprint_covers_the_step_and_what_feeds_it() -> None:
    before = places(STUDENT)
    student = places(replace(STUDENT, distill=replace(STUDENT.distill, temperature=1.0)))
    assert {name for name in before if before[name] != student[name]} == {"distill"}
    encoder = places(replace(STUDENT, pretrain=replace(STUDENT.pretrain, mask=0.2)))
    changed = {name for name in before if before[name] != encoder[name]}
    assert changed == {"pretrain", "finetune-teacher", "make-lessons", "distill"}
    seeded = places(replace(STUDENT, seed=1))
    assert {name for name in before if before[name] == seeded[name]} == {"extend-vocabulary"}


def test_recipes_that_differ_in_the_students_words_share_the_teacher() -> None:
    few = replace(STUDENT, pretrain=replace(STUDENT.pretrain, extend=False))
    many = replace(few, vocabulary=replace(few.vocabulary, new_words=9))
    before, after = places(few), places(many)
    assert before["finetune-teacher"] == after["finetune-teacher"]
    assert before["distill"] != after["distill"]


def test_students_that_share_a_teacher_differ_in_their_own_step_alone() -> None:
    def of(seed: int, teacher_seed: int | None) -> dict[str, str]:
        recipe = replace(STUDENT, seed=seed)
        steps = chain(recipe, Path("data"), "digest", Path("out"), teacher_seed=teacher_seed)
        return {step.name: step.place.name for step in steps}

    one, other = of(0, 0), of(1, 0)
    assert {name for name in one if one[name] != other[name]} == {"distill"}
    assert of(0, 0) == of(0, None)
    assert of(1, None)["finetune-teacher"] != other["finetune-teacher"]
