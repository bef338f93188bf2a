"""Steps are thin: they carry paths to one function of the library each."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kfp import dsl

import relevance.registry
import relevance.training.finetune
from components import _image
from relevance.errors import Finding

FOLDER = Path(_image.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def module(name: str) -> ModuleType:
    return importlib.import_module(f"components.{name}")


def component(name: str) -> Any:
    return getattr(module(name), name)


def artifacts(folder: Path, *names: str) -> Mapping[str, dsl.Artifact]:
    return {name: dsl.Artifact(name=name, uri=str(folder / name)) for name in names}


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What steps told MLflow, in its place."""
    calls: list[Mapping[str, Any]] = []
    monkeypatch.setattr(
        relevance.registry, "log_step", lambda uri, **given: calls.append({"uri": uri, **given})
    )
    return calls


def test_there_are_steps() -> None:
    assert len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_step_says_which_function_it_calls_and_calls_it(name: str) -> None:
    function = component(name).python_func
    named = re.match(r"See ``([\w.]+)\.(\w+)``", inspect.getdoc(function) or "")
    assert named
    assert callable(getattr(importlib.import_module(named[1]), named[2]))
    code = ast.parse(inspect.getsource(module(name)))
    imported = {
        (node.module, alias.name)
        for node in ast.walk(code)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert (named[1], named[2]) in imported


@pytest.mark.parametrize("name", NAMES)
def test_a_step_imports_only_kfp_before_it_runs(name: str) -> None:
    # the submitter's machine need not have what the step's image has
    imports = [
        node
        for node in ast.parse(inspect.getsource(module(name))).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {getattr(node, "module", "") for node in imports} == {"kfp", "components"}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_runs_in_one_of_our_images_and_installs_nothing(name: str) -> None:
    container = component(name).component_spec.implementation.container
    assert container.image in (_image.DATA, _image.TRAIN)
    assert "pip install" not in " ".join(container.command)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"finish_run"}))
def test_a_step_takes_its_settings_as_a_recipe_and_overrides(name: str) -> None:
    parameters = inspect.signature(component(name).python_func).parameters
    assert {"recipe", "overrides", "tracking_uri", "job", "metrics"} <= set(parameters)


@pytest.mark.parametrize(
    ("model", "guide", "state"), [("dual", None, ""), ("teacher", "guide", "states")]
)
def test_finetune_hands_over_the_model_s_config_guide_and_state(
    model: str,
    guide: str | None,
    state: str,
    tmp_path: Path,
    logged: list[Mapping[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}

    def finetune(config: object, *paths: Path, **settings: Any) -> dict[str, float]:
        given.update(settings, config=config, paths=paths)
        return {"valid": 0.5}

    monkeypatch.setattr(relevance.training.finetune, "finetune", finetune)
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    component("finetune").python_func(
        **artifacts(tmp_path, "dataset", "encoder", "checkpoint"),
        guide=dsl.Model(uri=str(tmp_path / guide)) if guide else None,
        model=model,
        recipe="smoke",
        overrides=["seed=7", f"{model}.dropout=0.3"],
        tracking_uri="sqlite:///m.db",
        job="j1",
        state=str(tmp_path / state) if state else "",
        metrics=metrics,
    )

    assert given["config"].dropout == 0.3
    assert given["config"].family == ("sbert" if model == "dual" else "bert")
    assert given["paths"] == tuple(tmp_path / n for n in ("dataset", "encoder", "checkpoint"))
    assert given["seed"] == 7
    assert given["guide"] == (tmp_path / guide if guide else None)
    assert given["state"] == (tmp_path / state / model if state else None)
    assert metrics.metadata == {"valid": 0.5}
    (call,) = logged
    assert call == {
        "uri": "sqlite:///m.db",
        "job": "j1",
        "step": f"finetune-{model}",
        "settings": given["config"],
        "metrics": {"valid": 0.5},
    }


def test_a_blocked_dataset_has_its_page_all_the_same(
    tiny_data: Path, tmp_path: Path, logged: list[Mapping[str, Any]]
) -> None:
    with pytest.raises(Finding, match="want that queries has 1,000 rows or more"):
        component("validate_data").python_func(
            data=[str(tiny_data)],
            recipe="smoke",
            overrides=["contract.min_queries=1000"],
            tracking_uri="",
            job="j1",
            metrics=dsl.Metrics(uri=str(tmp_path / "metrics")),
            **artifacts(tmp_path, "dataset", "reports", "page"),
        )
    assert (tmp_path / "page").read_bytes() == (tmp_path / "reports" / "index.html").read_bytes()
    assert logged == []


@pytest.mark.parametrize(("state", "succeeded"), [("SUCCEEDED", True), ("FAILED", False)])
def test_finish_run_ends_the_run_as_the_steps_ended(
    state: str, succeeded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []

    def close_run(uri: str, **given: Any) -> str:
        ends.append((uri, given))
        return "run"

    monkeypatch.setattr(relevance.registry, "close_run", close_run)
    status = dsl.PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="p",
        pipeline_task_name="t",
        error_code=None,
        error_message=None,
    )
    component("finish_run").python_func(tracking_uri="uri", job="j1", status=status)
    assert ends == [("uri", {"job": "j1", "succeeded": succeeded})]
