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

from relevance.baselines import BM25, TOKEN_OVERLAP, bm25_scores
from relevance.comparison_page import markdown, page
from relevance.configs import EvaluationConfig, OptimConfig, Recipe
from relevance.cost import PRECISION, measure_cost
from relevance.data.pairs import judged_pairs
from relevance.data.tables import data_hash, read_card
from relevance.data.uris import gather
from relevance.evaluation import LEXICAL, about, only_split, token_overlap
from relevance.files import new_file
from relevance.inference import score_pairs
from relevance.judging import judge
from relevance.metrics import FloatArray
from relevance.models import load
from relevance.plan import chain, record, trained_models
from relevance.steps import Say, Step, locked, make_all
from relevance.training.loop import fingerprint


def compare(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    data: Sequence[Path],
    out: Path,
    *,
    reference: str = "",
    teacher_seed: int | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Train what each recipe ends in, judge it beside the lexical baselines, write the tables.

    A run that was killed resumes in the same ``out``, and several may work there at once. Writes
    ``comparison.json``, ``comparison.md`` and ``index.html``, anew each time, and ``scores``;
    ``steps`` and ``states`` hold what was trained.

    Args:
        recipes: By the name they have in the tables, in their order.
        seeds: Each recipe is trained with each; the recipes' own are not used.
        data: Dataset directories, joined if several.
        out: Directory of the comparison.
        reference: Row that the others are compared with; the first recipe unless given.
        teacher_seed: Students of all seeds share the teacher of this one, instead of each having
            its own: their spread is then that of the distillation alone.
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
    final = {
        (name, seed): _score_step(steps[-1], f"{name}-seed{seed}", config.split, pairs, out)
        for (name, seed), steps in chains.items()
    }
    make_all(
        [step for job, steps in chains.items() for step in (*steps, final[job])],
        out / "locks",
        say,
    )
    overlap = token_overlap(judged[judged["split"] == "train"], config.relevant_grade)
    queries, titles = list(pairs["query"]), list(pairs["title"])
    scores: dict[str, list[FloatArray]] = {
        BM25: [bm25_scores(dataset, queries, titles)],
        TOKEN_OVERLAP: [overlap.score(queries, titles)],
    }
    for name in recipes:
        scores[name] = [_read_scores(final[name, seed].place, pairs) for seed in seeds]
    say("judge and time the models")
    comparison = about(read_card(dataset), dataset) | judge(config, pairs, scores, reference)
    comparison["seeds"] = list(seeds)
    if teacher_seed is not None:
        comparison["notes"].append(f"All students share the teacher of seed {teacher_seed}.")
    comparison["recipes"] = {name: dataclasses.asdict(recipe) for name, recipe in recipes.items()}
    # seeds differ in weights, and those cost the same
    checkpoints = {name: chains[name, seeds[0]][-1].result for name in recipes}
    comparison["cost"] = measure_cost(checkpoints, pairs)
    comparison["training"] = [
        {"recipe": name, "seed": seed, "steps": [record(step) for step in steps]}
        for (name, seed), steps in chains.items()
    ]
    comparison["notes"].append(f"{overlap.note}.")
    _write(comparison, out)
    return comparison


def flatten(comparison: Mapping[str, Any]) -> dict[str, float]:
    """Values of the first part under ``<row>/<metric>``, and what each model costs."""
    part = comparison["parts"][0]
    numbers = {
        f"{row}/{metric}": result["value"]
        for row, metrics in part["models"].items()
        for metric, result in metrics.items()
        if result["value"] is not None
    }
    for row, costs in comparison["cost"]["models"].items():
        numbers |= {f"{row}/{name}": float(value) for name, value in costs.items()}
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


def _score_step(checkpoint: Step, job: str, split: str, pairs: pd.DataFrame, out: Path) -> Step:
    key = checkpoint.place.name.rpartition("-")[2]
    place = out / "scores" / f"{job}-{split}-{key}.parquet"

    def make() -> None:
        model = load(checkpoint.result)
        queries, titles = list(pairs["query"]), list(pairs["title"])
        scores = score_pairs(model, queries, titles, precision=PRECISION, progress=f"score {job}")
        table = pairs[["query_id", "item_id", "source", "grade"]].assign(score=scores)
        with new_file(place) as partial:
            table.to_parquet(partial, index=False)

    return Step(f"score {job}", place, (checkpoint,), make)


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
