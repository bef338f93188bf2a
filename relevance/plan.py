"""What a recipe trains, as steps; what recipes and seeds share is the same step.

A step's directory is named by a fingerprint of all that decides it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relevance.configs import FinetuneConfig, Recipe, VocabularyConfig
from relevance.data.tagger import learn_terms
from relevance.data.vocabulary import extend_vocabulary
from relevance.files import new_dir
from relevance.steps import Step
from relevance.training.distill import distill, make_lessons
from relevance.training.finetune import finetune
from relevance.training.loop import fingerprint
from relevance.training.pretrain import pretrain

_Work = Callable[[Path, Path], Mapping[str, float]]
"""Result to make and directory of training states -> numbers."""


_TERMS_SEED = 0
"""Terms are learnt once for all seeds, as the vocabulary is: they are data, not the model."""


def chain(
    recipe: Recipe, data: Path, digest: str, out: Path, *, teacher_seed: int | None = None
) -> list[Step]:
    """The steps that end in the checkpoint ``recipe`` is for, which is the last one's result.

    Args:
        recipe: With its seed.
        data: Dataset directory.
        digest: Its ``data_hash``.
        out: Directory of the comparison.
        teacher_seed: Of all that a student learns from, instead of the recipe's.
    """
    seed = recipe.seed
    early = seed
    if recipe.ends_in == "student" and teacher_seed is not None:
        early = teacher_seed
    steps: list[Step] = []

    def add(name: str, settings: object, inputs: Iterable[Step | None], work: _Work) -> Step:
        made = tuple(step for step in inputs if step)
        key = fingerprint(name, settings, digest, [step.place.name for step in made])
        place = out / "steps" / f"{name}-{key}"
        state = out / "states" / place.name
        steps.append(Step(name, place, made, lambda: _train(work, place, state)))
        return steps[-1]

    def tuned(name: str, config: FinetuneConfig, guide: Step | None) -> Step:
        asked = terms if config.has_terms else None
        return add(
            f"finetune-{name}",
            (config, early),
            (encoder, guide, asked),
            lambda result, state: finetune(
                config,
                data,
                encoder.result,
                result,
                seed=early,
                guide=guide.result if guide else None,
                terms=asked.result if asked else None,
                state=state,
            ),
        )

    def tokenizer(config: VocabularyConfig) -> Step:
        return add(
            "extend-vocabulary",
            config,
            (),
            lambda result, state: extend_vocabulary(config, data, result),
        )

    known = recipe.vocabulary
    if not recipe.pretrain.extend:
        # so that recipes that differ in a student's words alone share encoder and teacher
        known = VocabularyConfig(encoder=known.encoder, base_size=known.base_size, new_words=0)
    vocabulary = tokenizer(known)
    terms = None
    if _has_terms(recipe):
        terms = add(
            "learn-terms",
            (recipe.terms, _TERMS_SEED),
            (),
            lambda result, state: learn_terms(
                recipe.terms, data, result, seed=_TERMS_SEED, state=state
            ),
        )
    encoder = add(
        "pretrain",
        (recipe.pretrain, early),
        (vocabulary,),
        lambda result, state: pretrain(
            recipe.pretrain, data, vocabulary.result, result, seed=early, state=state
        ),
    )
    guide = None
    if "dual" in trained_models(recipe):
        guide = tuned("dual", recipe.dual, None)
    if recipe.ends_in == "dual":
        return steps
    teacher = tuned("teacher", recipe.teacher, guide)
    if recipe.ends_in == "teacher":
        return steps
    taught = terms if recipe.distill.has_terms else None
    words = vocabulary if recipe.pretrain.extend else tokenizer(recipe.vocabulary)
    lessons = add(
        "make-lessons",
        (recipe.distill.weak, early),
        (teacher,),
        lambda result, state: make_lessons(
            recipe.distill, data, teacher.result, result, seed=early
        ),
    )
    add(
        "distill",
        (recipe.distill, seed),
        (words, teacher, taught, lessons),
        lambda result, state: distill(
            recipe.distill,
            data,
            teacher.result,
            result,
            seed=seed,
            vocabulary=words.result,
            terms=taught.result if taught else None,
            lessons=lessons.result,
            state=state,
        ),
    )
    return steps


def trained_models(recipe: Recipe) -> tuple[str, ...]:
    """Sections of the models that have to be trained to have the one ``recipe`` ends in."""
    if recipe.ends_in == "dual":
        return ("dual",)
    # the guide labels the pairs of stage A alone
    is_guided = recipe.teacher.guide_weight > 0 and recipe.teacher.stage_a.steps > 0
    guides = ("dual",) if is_guided else ()
    ends = ("distill",) if recipe.ends_in == "student" else ()
    return (*guides, "teacher", *ends)


def record(step: Step) -> dict[str, Any]:
    """Name, place, seconds and numbers of a step that was made."""
    found = json.loads((step.place / "step.json").read_text(encoding="utf-8"))
    return {"step": step.name, "place": step.place.name, **found}


def _has_terms(recipe: Recipe) -> bool:
    return any(getattr(recipe, model).has_terms for model in trained_models(recipe))


def _train(work: _Work, place: Path, state: Path) -> None:
    """Make ``place`` with the step's result, its numbers, and what it took."""
    is_resumed = state.exists()
    started = time.monotonic()
    with new_dir(place) as partial:
        numbers = work(partial / "result", state)
        facts = {
            "seconds": time.monotonic() - started,
            # the time of the run that was killed is not in seconds
            "is_resumed": is_resumed,
            "numbers": {k: v if np.isfinite(v) else None for k, v in numbers.items()},
        }
        text = json.dumps(facts, indent=2, allow_nan=False)
        (partial / "step.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(state, ignore_errors=True)
