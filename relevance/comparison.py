"""Recipes side by side: trained over seeds, judged on the same pairs and resamples, timed.

What recipes and seeds share is trained once; see ``relevance.plan``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relevance.changed_pairs import ChangedPairs
from relevance.comparison_page import markdown, page
from relevance.configs import EvaluationConfig, OptimConfig, Recipe
from relevance.cost import PRECISION, measure_cost
from relevance.data.pairs import judged_pairs
from relevance.data.tables import data_hash, read_card
from relevance.data.uris import gather
from relevance.evaluation import (
    LEXICAL,
    Scorer,
    about,
    lexical_scorers,
    only_split,
    served_probability,
    token_overlap,
)
from relevance.files import new_file
from relevance.inference import load_scorer, score_pairs
from relevance.judging import judge
from relevance.metrics import FloatArray
from relevance.plan import chain, record, trained_models
from relevance.robustness import compare_changes
from relevance.steps import Say, Step, locked, make_all
from relevance.training.loop import fingerprint

_Job = tuple[str, int]
"""Recipe and seed."""


def compare(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    data: Sequence[Path],
    out: Path,
    *,
    reference: str = "",
    teacher_seed: int | None = None,
    with_robustness: bool = False,
    command: str = "",
    say: Say = print,
) -> dict[str, Any]:
    """Train what each recipe ends in, judge it beside the lexical baselines, write the tables.

    A run that was killed resumes in the same ``out``, and several may work there at once. Writes
    ``comparison.json``, ``comparison.md`` and ``index.html``, anew each time, and ``scores``;
    ``steps`` and ``states`` hold what was trained, ``robustness`` scores of changed pairs.

    Args:
        recipes: By the name they have in the tables, in their order.
        seeds: Each recipe is trained with each; the recipes' own are not used.
        data: Dataset directories, joined if several.
        out: Directory of the comparison.
        reference: Row that the others are compared with; the first recipe unless given.
        teacher_seed: Students of all seeds share the teacher of this one, instead of each having
            its own: their spread is then that of the distillation alone.
        with_robustness: Also change the pairs and judge how scores follow; see
            ``relevance.robustness``.
        command: What the pages say that they were made by.
        say: Takes a line of progress.

    Returns:
        What ``comparison.json`` holds.

    Raises:
        ValueError: Nothing to compare, a recipe that trains nothing, recipes judged differently,
            a reference that is no row, or no judged pairs in the split.
        OSError: A dataset or a table is missing.
    """
    reference = reference or next(iter(recipes), "")
    config = _check(recipes, seeds, reference)
    dataset = _dataset(data, out)
    judged = judged_pairs(dataset)
    pairs = only_split(judged, config.split, dataset)
    digest = data_hash(dataset)
    chains = {
        (name, seed): chain(
            dataclasses.replace(recipe, seed=seed), dataset, digest, out, teacher_seed=teacher_seed
        )
        for name, recipe in recipes.items()
        for seed in seeds
    }
    models = {job: steps[-1] for job, steps in chains.items()}
    final = {job: _score_step(step, job, config, pairs, out) for job, step in models.items()}
    make_all(
        [step for job, steps in chains.items() for step in (*steps, final[job])],
        out / "locks",
        say,
    )
    overlap = token_overlap(judged[judged["split"] == "train"], config.relevant_grade)
    lexical = lexical_scorers(dataset, overlap)
    queries, titles = list(pairs["query"]), list(pairs["title"])
    scores = {row: [scorer(queries, titles)] for row, scorer in lexical.items()}
    for name, seed in models:
        found = _read_scores(final[name, seed].place, pairs)
        scores.setdefault(name, []).append(found)
    served = _served(config, models, scores)
    say("judge and time the models")
    comparison = about(read_card(dataset), dataset)
    comparison |= judge(config, pairs, scores, reference, served)
    comparison["command"] = command
    comparison["seeds"] = list(seeds)
    if teacher_seed is not None:
        comparison["notes"].append(f"All students share the teacher of seed {teacher_seed}.")
    comparison["recipes"] = {name: dataclasses.asdict(recipe) for name, recipe in recipes.items()}
    # seeds differ in weights, and those cost the same
    checkpoints = {name: models[name, seeds[0]].result for name in recipes}
    comparison["cost"] = measure_cost(checkpoints, pairs)
    comparison["training"] = [
        {"recipe": name, "seed": seed, "steps": [record(step) for step in steps]}
        for (name, seed), steps in chains.items()
    ]
    comparison["notes"].append(f"{overlap.note}.")
    if with_robustness:
        comparison["robustness"] = _robustness(
            config, dataset, lexical, models, reference, out, say
        )
    _write(comparison, out)
    return comparison


def flatten(comparison: Mapping[str, Any]) -> dict[str, float]:
    """Values of the first part under ``<row>/<metric>``, and what each model costs.

    Shares of changed pairs, where there are, stand under ``<row>/robustness/<change or suite>``.
    """
    part = comparison["parts"][0]
    numbers = {
        f"{row}/{metric}": result["value"]
        for row, metrics in part["models"].items()
        for metric, result in metrics.items()
        if result["value"] is not None
    }
    for row, costs in comparison["cost"]["models"].items():
        numbers |= {f"{row}/{name}": float(value) for name, value in costs.items()}
    for row, shares in comparison.get("robustness", {}).get("shares", {}).items():
        numbers |= {
            f"{row}/robustness/{name}": share["value"]
            for name, share in shares.items()
            if share["value"] is not None
        }
    return numbers


def _check(recipes: Mapping[str, Recipe], seeds: Sequence[int], reference: str) -> EvaluationConfig:
    """Raise on what would only fail after hours; returns how all recipes are judged."""
    if not recipes:
        raise ValueError("no recipes: want one or more")
    if not seeds:
        raise ValueError("no seeds: want one or more")
    for seed in seeds:
        if list(seeds).count(seed) > 1:
            raise ValueError(f"seed {seed}: given twice")
    rows = (*LEXICAL, *recipes)
    for name in recipes:
        if rows.count(name) > 1:
            raise ValueError(f"recipe {name!r}: taken; choose none of {', '.join(LEXICAL)}")
    if reference not in rows:
        raise ValueError(f"reference {reference!r}: no row; there are {', '.join(rows)}")
    first, config = next((name, recipe.evaluation) for name, recipe in recipes.items())
    for name, recipe in recipes.items():
        if recipe.evaluation != config:
            raise ValueError(
                f"recipe {name!r}: judged by {recipe.evaluation}, but {first!r} by {config}; "
                "set them alike, for example --set evaluation.resamples=1000"
            )
        for model in trained_models(recipe):
            section = getattr(recipe, model)
            if not any(optim.steps for optim in _stages(section)):
                raise ValueError(
                    f"recipe {name!r}: ends in {recipe.ends_in}, but {model} has no steps to train"
                )
    return config


def _stages(config: object) -> list[OptimConfig]:
    return [value for value in vars(config).values() if isinstance(value, OptimConfig)]


def _dataset(data: Sequence[Path], out: Path) -> Path:
    """The dataset itself, or several joined once in ``out``."""
    if not data:
        raise ValueError("no data: want one dataset directory or more")
    for source in data:
        read_card(source)
    if len(data) == 1:
        return data[0]
    joined = out / f"dataset-{fingerprint([data_hash(source) for source in data])}"
    with locked(out / "locks" / joined.name, wait=True):
        if not joined.exists():
            gather([str(source) for source in data], joined)
    return joined


def _served(
    config: EvaluationConfig, models: Mapping[_Job, Step], scores: Mapping[str, list[FloatArray]]
) -> dict[str, list[FloatArray]]:
    """Probabilities that a recipe's checkpoints serve, where all do: a mean is of one kind."""
    given: dict[str, list[FloatArray | None]] = {}
    for (name, _), step in models.items():
        runs = given.setdefault(name, [])
        runs.append(served_probability(config, step.result, scores[name][len(runs)]))
    known = {name: [run for run in runs if run is not None] for name, runs in given.items()}
    return {name: runs for name, runs in known.items() if len(runs) == len(given[name])}


def _robustness(
    config: EvaluationConfig,
    dataset: Path,
    lexical: Mapping[str, Scorer],
    models: Mapping[_Job, Step],
    reference: str,
    out: Path,
    say: Say,
) -> dict[str, Any]:
    """Score the changed pairs by every model, each once, and judge them."""
    changed = ChangedPairs.of(config, dataset)
    asked = changed.asked
    queries, titles = list(asked["query"]), list(asked["title"])
    steps = {job: _changed_step(step, job, config, asked, out) for job, step in models.items()}
    make_all(list(steps.values()), out / "locks", say)
    say("judge the changed pairs")
    scores = {row: [scorer(queries, titles)] for row, scorer in lexical.items()}
    for (name, _), step in steps.items():
        found = pd.read_parquet(step.place, columns=["score"])["score"]
        scores.setdefault(name, []).append(found.to_numpy(float))
    return compare_changes(config, changed, scores, reference)


def _score_step(
    model: Step, job: _Job, config: EvaluationConfig, pairs: pd.DataFrame, out: Path
) -> Step:
    """Raw scores of the judged pairs."""
    name, key = f"{job[0]}-seed{job[1]}", model.place.name.rpartition("-")[2]
    place = out / "scores" / f"{name}-{config.split}-{key}.parquet"
    kept = ["query_id", "item_id", "source", "grade"]
    return _scores(f"score {name}", place, model, pairs, kept)


def _changed_step(
    model: Step, job: _Job, config: EvaluationConfig, asked: pd.DataFrame, out: Path
) -> Step:
    """Raw scores of every pair that the changes ask for, in their order."""
    name = f"{job[0]}-seed{job[1]}"
    # other changes are other pairs
    key = fingerprint(model.place.name, list(asked["query"]), list(asked["title"]))
    place = out / "robustness" / f"changed-{name}-{config.split}-{key}.parquet"
    return _scores(f"score changed {name}", place, model, asked, ["query", "title"])


def _scores(name: str, place: Path, model: Step, pairs: pd.DataFrame, kept: list[str]) -> Step:
    def make() -> None:
        queries, titles = list(pairs["query"]), list(pairs["title"])
        checkpoint = load_scorer(model.result)
        scores = score_pairs(checkpoint, queries, titles, precision=PRECISION, progress=name)
        with new_file(place) as partial_file:
            pairs[kept].assign(score=scores).to_parquet(partial_file, index=False)

    return Step(name, place, (model,), make)


def _read_scores(path: Path, pairs: pd.DataFrame) -> FloatArray:
    scores = pairs[["query_id", "item_id"]].merge(
        pd.read_parquet(path, columns=["query_id", "item_id", "score"]),
        on=["query_id", "item_id"],
        how="left",
        validate="one_to_one",
    )
    return np.asarray(scores["score"], float)


def _write(comparison: Mapping[str, Any], out: Path) -> None:
    texts = {
        "comparison.json": json.dumps(comparison, indent=2, allow_nan=False, ensure_ascii=False)
        + "\n",
        "comparison.md": markdown(comparison),
        "index.html": page(comparison),
    }
    for name, text in texts.items():
        with new_file(out / name, replace=True) as partial:
            partial.write_text(text, encoding="utf-8")
