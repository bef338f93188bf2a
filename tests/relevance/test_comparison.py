"""Recipes side by side: what is trained once, what is resumed, and what the numbers say."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from querylift.commands.comparing import _settings
from querylift.commands.comparing import compare as command
from relevance import comparison, plan
from relevance.comparison import compare, flatten
from relevance.comparison_page import markdown, page
from relevance.configs import EvaluationConfig, Recipe
from relevance.evaluation import served_probability
from relevance.models import load
from relevance.robustness import KEYS, robustness
from tests.relevance.tiny_recipes import NONE, STUDENT, TEACHER

STEPS = ("extend_vocabulary", "learn_terms", "pretrain", "finetune", "distill")


def silent(_: str) -> None:
    pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each step ran."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        run = getattr(plan, name)

        def step(*arguments: Any, **named: Any) -> Any:
            counted[name] += 1
            return run(*arguments, **named)

        return step

    for name in STEPS:
        monkeypatch.setattr(plan, name, counting(name))
    return counted


@pytest.fixture(scope="module")
def compared(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    compare({"teacher": TEACHER, "student": STUDENT}, [0, 1], [tiny_data], out, say=silent)
    return out


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return found


def test_what_recipes_share_is_trained_once(
    tiny_data: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    warm = replace(STUDENT, distill=replace(STUDENT.distill, temperature=1.0))
    recipes = {"teacher": TEACHER, "student": STUDENT, "warm": warm}
    compare(recipes, [0], [tiny_data], tmp_path, say=silent)
    assert calls == {"extend_vocabulary": 1, "pretrain": 1, "finetune": 1, "distill": 2}


def test_a_larger_comparison_trains_only_what_is_new(
    tiny_data: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    compare({"teacher": TEACHER}, [0], [tiny_data], tmp_path, say=silent)
    calls.clear()
    compare({"teacher": TEACHER, "student": STUDENT}, [0], [tiny_data], tmp_path, say=silent)
    assert calls == {"distill": 1}
    assert set(read(tmp_path)["parts"][0]["models"]) == {
        "bm25",
        "token-overlap",
        "teacher",
        "student",
    }


def test_a_killed_run_resumes_inside_the_step_it_was_in(
    compared: Path,
    tiny_data: Path,
    tmp_path: Path,
    calls: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from relevance.training import loop

    store, stored = loop._store, []

    def killed(file: Path, *rest: Any) -> None:
        store(file, *rest)
        stored.append(file)
        if len(stored) == 3:  # pretraining stored two
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_store", killed)
        with pytest.raises(KeyboardInterrupt):
            compare({"teacher": TEACHER}, [0], [tiny_data], tmp_path, say=silent)
    assert [path.name for path in (tmp_path / "states").iterdir()] == [stored[-1].parent.name]
    calls.clear()
    compare({"teacher": TEACHER}, [0], [tiny_data], tmp_path, say=silent)
    assert calls == {"finetune": 1}
    steps = read(tmp_path)["training"][0]["steps"]
    assert [step["is_resumed"] for step in steps] == [False, False, True]
    assert not any((tmp_path / "states").iterdir())
    # and it ends as a run that was not killed
    scores = [next((out / "scores").glob("teacher-seed0-*")) for out in (compared, tmp_path)]
    assert scores[0].name == scores[1].name
    pd.testing.assert_frame_equal(*map(pd.read_parquet, scores))


def test_several_datasets_are_joined_once(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    from tests.tiny import write_tiny_dataset

    write_tiny_dataset(other, with_events=True)
    joined = comparison._dataset([tiny_data, other], tmp_path / "out")
    monkeypatch.setattr(comparison, "gather", None)
    assert comparison._dataset([tiny_data, other], tmp_path / "out") == joined
    assert comparison._dataset([tiny_data], tmp_path / "out") == tiny_data


# ---------------------------------------------------------------------------- what is written


def test_everything_finished_is_kept_with_its_numbers(compared: Path) -> None:
    steps = sorted(path.name.rpartition("-")[0] for path in (compared / "steps").iterdir())
    seeded = ["distill", "finetune-teacher", "make-lessons", "pretrain"]
    assert steps == sorted(["extend-vocabulary", *seeded, *seeded])
    for place in (compared / "steps").iterdir():
        record = json.loads((place / "step.json").read_text())
        assert record["seconds"] > 0
        assert record["numbers"]
        assert (place / "result").exists()
    scores = pd.read_parquet(next((compared / "scores").glob("student-seed1-valid-*.parquet")))
    assert list(scores) == ["query_id", "item_id", "source", "grade", "score"]
    assert len(list((compared / "scores").iterdir())) == 4


def test_cost_is_measured_for_every_model(compared: Path) -> None:
    cost = read(compared)["cost"]
    assert cost["threads"] == 1
    teacher, student = (cost["models"][name] for name in ("teacher", "student"))
    assert teacher["parameters"] > student["parameters"] > 0
    assert min(teacher["microseconds_per_pair"], student["microseconds_per_pair"]) > 0


def test_the_pages_hold_the_same_numbers(compared: Path) -> None:
    found = read(compared)
    text, html = ((compared / name).read_text() for name in ("comparison.md", "index.html"))
    assert text == markdown(found)
    assert html == page(found)
    area = found["parts"][0]["models"]["student"]["roc_auc"]
    less = found["parts"][0]["less_reference"]["student"]["roc_auc"]
    for number in (*area["seeds"], area["sd"], area["value"]):
        assert f"{number:.3f}" in text
        assert f"{number:.3f}" in html
    assert f"{less['value']:+.3f} [{less['low']:+.3f}, {less['high']:+.3f}]" in text
    for step in (step for run in found["training"] for step in run["steps"]):
        for stage in (n.removesuffix("/seconds") for n in step["numbers"] if "/seconds" in n):
            row = next(line for line in text.splitlines() if f"| {stage} |" in line)
            assert "–" not in row  # seconds, examples a second, peak memory
    assert "distill-gold" in text
    assert "less teacher" in text
    assert html.count("<svg") == len(found["definitions"])
    assert "http" not in html
    assert "Generated data" in text


def test_flat_numbers_are_those_of_the_first_part(compared: Path) -> None:
    found = read(compared)
    numbers = flatten(found)
    assert numbers["student/roc_auc"] == found["parts"][0]["models"]["student"]["roc_auc"]["value"]
    assert numbers["teacher/parameters"] == found["cost"]["models"]["teacher"]["parameters"]


def test_calibration_is_judged_by_what_the_checkpoints_serve(
    compared: Path, tiny_data: Path, tmp_path: Path
) -> None:
    places = {step["step"]: step["place"] for step in read(compared)["training"][0]["steps"]}
    checkpoint = compared / "steps" / places["finetune-teacher"] / "result"
    scores = np.linspace(-3, 3, 7)
    served = served_probability(EvaluationConfig(), checkpoint, scores)
    assert served is not None
    np.testing.assert_array_equal(served, load(checkpoint).calibration.probability(scores))
    strict = replace(TEACHER, evaluation=EvaluationConfig(split="train", resamples=20))
    found = compare({"teacher": strict}, [0], [tiny_data], tmp_path, say=silent)
    assert any("those that teacher serve" in note for note in found["notes"])


# --------------------------------------------------------------------------------- robustness


@pytest.fixture(scope="module")
def robust(compared: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was compared, and then with robustness too."""
    out = tmp_path_factory.mktemp("robust")
    shutil.copytree(compared, out, dirs_exist_ok=True)
    recipes = {"teacher": TEACHER, "student": STUDENT}
    compare(recipes, [0, 1], [tiny_data], out, with_robustness=True, say=silent)
    return out


def test_robustness_has_every_row_and_change(robust: Path) -> None:
    found = read(robust)["robustness"]
    assert list(found["shares"]) == ["bm25", "token-overlap", "teacher", "student"]
    assert set(found["less_reference"]) == set(found["shares"]) - {"teacher"}
    assert all(set(shares) == set(KEYS) for shares in found["shares"].values())
    assert found["changed"] > 0
    student, teacher = (found["shares"][row]["typos"] for row in ("student", "teacher"))
    assert len(student["seeds"]) == 2
    assert student["value"] == pytest.approx(sum(student["seeds"]) / 2)
    less = found["less_reference"]["student"]["typos"]["value"]
    assert less == pytest.approx(student["value"] - teacher["value"])
    assert flatten(read(robust))["student/robustness/typos"] == student["value"]


def test_robustness_is_that_of_the_scores_in_its_files(robust: Path, tiny_data: Path) -> None:
    file = next((robust / "robustness").glob("changed-student-seed1-valid-*.parquet"))
    stored = pd.read_parquet(file)
    known = stored.set_index(["query", "title"])["score"]

    def score(queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        return np.asarray(known.loc[list(zip(queries, titles, strict=True))])

    alone, _ = robustness(STUDENT.evaluation, tiny_data, {"student": score})
    found = read(robust)["robustness"]["shares"]["student"]
    for suite, share in alone["models"]["student"]["suites"].items():
        assert found[suite]["seeds"][1] == share["value"]


def test_changed_pairs_are_scored_once(
    robust: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(list((robust / "robustness").iterdir())) == 4
    monkeypatch.setattr(comparison, "score_pairs", None)
    recipes = {"teacher": TEACHER, "student": STUDENT}
    before = read(robust)["robustness"]
    compare(recipes, [0, 1], [tiny_data], robust, with_robustness=True, say=silent)
    assert read(robust)["robustness"] == before


def test_the_pages_have_robustness_where_it_was_asked_for(compared: Path, robust: Path) -> None:
    for name in ("comparison.md", "index.html"):
        assert "Robustness" not in (compared / name).read_text()
        text = (robust / name).read_text()
        for word in ("Robustness", "Shares less teacher", "Mean change of score", "all", *KEYS):
            assert word in text
    share = read(robust)["robustness"]["shares"]["student"]["typos"]
    assert f"{share['value']:.3f} [{share['low']:.3f}" in (robust / "comparison.md").read_text()


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("recipes", "seeds", "reference", "message"),
    [
        ({}, [0], "", "no recipes"),
        ({"a": TEACHER}, [], "", "no seeds"),
        ({"a": TEACHER}, [0, 1, 0], "", "seed 0: given twice"),
        ({"a": TEACHER}, [-1], "", "seed is -1"),
        ({"bm25": TEACHER}, [0], "", "recipe 'bm25': taken"),
        ({"a": TEACHER}, [0], "b", "reference 'b': no row; there are bm25, token-overlap, a"),
        (
            {"a": replace(STUDENT, distill=replace(STUDENT.distill, gold=NONE))},
            [0],
            "",
            "recipe 'a': ends in student, but distill has no steps",
        ),
        (
            {"a": TEACHER, "b": replace(TEACHER, evaluation=EvaluationConfig(seed=7))},
            [0],
            "",
            "recipe 'b': judged by .* but 'a' by",
        ),
    ],
)
def test_what_cannot_end_well_is_refused_before_training(
    recipes: dict[str, Recipe],
    seeds: list[int],
    reference: str,
    message: str,
    tiny_data: Path,
    tmp_path: Path,
    calls: Counter[str],
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(recipes, seeds, [tiny_data], tmp_path, reference=reference, say=silent)
    assert not calls


def test_a_split_without_judgments_is_refused_before_training(
    tiny_data: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    import pyarrow.parquet as pq

    data = tmp_path / "data"
    data.mkdir()
    for path in tiny_data.iterdir():
        os.link(path, data / path.name)
    queries = pq.read_table(data / "queries.parquet").to_pandas()
    queries["split"] = queries["split"].replace("valid", "test")
    (data / "queries.parquet").unlink()
    queries.to_parquet(data / "queries.parquet", index=False)
    with pytest.raises(ValueError, match="split 'valid' has no judged pairs"):
        compare({"a": TEACHER}, [0], [data], tmp_path / "out", say=silent)
    assert not calls


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipes": ["smoke", "nosuch"]}, "recipe 'nosuch': unknown"),
        ({"recipes": ["smoke,smoke"]}, "--recipes: 'smoke' is given twice"),
        ({"recipes": ["smoke"], "seeds": ["0,x"]}, "--seeds 'x': want whole numbers"),
        ({"recipes": ["smoke"], "settings": ["seed=3"]}, "--set seed=3: each recipe gets"),
        ({"recipes": ["smoke"], "settings": ["shop:dual.dropout=0"]}, "'shop' is not compared"),
        ({"recipes": ["smoke"], "settings": ["smoke:dual.rl=0"]}, "dual.rl: FinetuneConfig"),
        ({"recipes": ["smoke"], "split": "nosuch"}, "evaluation.split=nosuch"),
    ],
)
def test_the_command_names_what_is_wrong(
    given: dict[str, Any], message: str, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        command(data=[tiny_data], out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_setting_can_be_of_some_recipes_alone() -> None:
    given = ["dual.dropout=0", "a,b:teacher.dropout=0.2", "b:teacher.dropout=0.3"]
    assert _settings(["a", "b", "c"], given) == {
        "a": ["dual.dropout=0", "teacher.dropout=0.2"],
        "b": ["dual.dropout=0", "teacher.dropout=0.2", "teacher.dropout=0.3"],
        "c": ["dual.dropout=0"],
    }


def test_the_command_prints_a_table_or_json(
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_to_shell = ["compare", "--data", "a shop", "--out", "runs/x"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/querylift", *given_to_shell])
    settings = [
        "ends_in=teacher",
        "teacher.guide_weight=0",
        "teacher.stage_a.steps=0",
        "evaluation.resamples=20",
        "evaluation.relevant_grade=1",
    ]
    given: dict[str, Any] = {"data": [tiny_data], "out": tmp_path, "settings": settings}
    command(recipes=["smoke"], seeds=["0"], split="test", reference="bm25", **given)
    table = capsys.readouterr().out
    assert table.split()[:2] == ["model", "roc_auc"]
    assert "less bm25" in table
    assert "smoke" in table
    made_by = (tmp_path / "comparison.md").read_text().splitlines()[2]
    assert made_by == "    querylift compare --data 'a shop' --out runs/x"
    assert "querylift compare --data" in (tmp_path / "index.html").read_text()
    command(recipes=["smoke"], seeds=["0"], split="test", as_json=True, **given)
    assert "smoke/roc_auc" in json.loads(capsys.readouterr().out)
