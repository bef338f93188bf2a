"""Components are thin, and say what their functions do; the end-to-end test runs them."""

from __future__ import annotations

import ast
import fcntl
import importlib
import inspect
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kfp import dsl

from components._step import resumable, show

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "components").glob("[!_]*.py"))
NAMES = [path.stem for path in FILES]
LINES = 50
"""Of code; more belongs into the library."""


@pytest.fixture(params=NAMES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"components.{request.param}")


def component(module: ModuleType) -> Any:
    return getattr(module, module.__name__.rpartition(".")[2])


def function_node(module: ModuleType) -> ast.FunctionDef:
    tree = ast.parse(inspect.getsource(module))
    (node,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return node


def test_every_step_of_the_graph_has_a_file() -> None:
    assert set(NAMES) == {
        "validate_data", "extend_vocabulary", "learn_terms", "pretrain", "finetune", "distill",
        "evaluate", "register", "finish_run",
    }  # fmt: skip


def test_a_component_is_named_as_its_file_and_as_the_function_that_it_calls(
    module: ModuleType,
) -> None:
    name = module.__name__.rpartition(".")[2]
    assert component(module).name == name.replace("_", "-")
    node = function_node(module)
    imported = {
        alias.name
        for statement in ast.walk(node)
        if isinstance(statement, ast.ImportFrom)
        and (statement.module or "").startswith("relevance")
        for alias in statement.names
    }
    assert name in imported
    assert ast.get_docstring(node, clean=True).startswith("See ``relevance.")  # type: ignore[union-attr]


def test_a_component_is_thin_and_imports_only_kfp_outside_of_its_function(
    module: ModuleType,
) -> None:
    tree = ast.parse(inspect.getsource(module))
    outside = [ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert outside == ["from kfp import dsl", "from components import _image"]
    node = function_node(module)
    assert node.end_lineno is not None
    assert node.end_lineno - node.lineno < LINES


def test_two_values_carry_every_setting(module: ModuleType) -> None:
    if module.__name__ == "components.finish_run":
        return
    inputs = component(module).component_spec.inputs
    settings = {name for name, spec in inputs.items() if "@" not in str(spec.type)}
    assert {"recipe", "overrides"} <= settings
    # the rest is where, not how; ``model`` names a part of the recipe
    assert settings <= {"recipe", "overrides", "tracking_uri", "state", "data", "model", "image"}


def test_components_install_nothing(module: ModuleType) -> None:
    container = component(module).component_spec.implementation.container
    assert "pip install" not in " ".join(container.command)


def test_numbers_that_json_lacks_are_left_out_in_kubeflow() -> None:
    metrics = dsl.Metrics()
    show(metrics, {"loss": 0.5, "valid": math.nan, "best": -math.inf})
    assert metrics.metadata == {"loss": 0.5}


def test_a_step_holds_its_state_until_it_ends(tmp_path: Path) -> None:
    with resumable(str(tmp_path), "pretrain") as state:
        assert state == tmp_path / "pretrain"
        assert state.is_dir()
        with (tmp_path / "pretrain.lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "pretrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_without_a_state_directory_the_function_chooses() -> None:
    with resumable("", "pretrain") as state:
        assert state is None
