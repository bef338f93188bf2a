"""The training graph on this machine, by kfp's local runner."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import subprocess_task_handler

from pipelines.console import Console
from pipelines.train import train_pipeline
from relevance.data.tables import read_card
from relevance.files import new_file
from relevance.recipes import pipeline_config

RESULTS: Mapping[str, str] = {
    "dataset": "validate-data/dataset",
    "validation": "validate-data/validation",
    "vocabulary": "extend-vocabulary/vocabulary",
    "vocabulary-validation": "extend-vocabulary/validation",
    "terms": "learn-terms/terms",
    "encoder": "pretrain/encoder",
    "dual": "finetune/checkpoint",
    "teacher": "finetune-2/checkpoint",
    "student": "distill/student",
    "evaluation": "evaluate/evaluation",
}
"""What a run leaves in its directory, and which task's output it is."""

_DONE = "run.json"
_ENVIRONMENT = {
    # a step's lines come when they are printed, not when the step ends
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TRANSFORMERS_VERBOSITY": "error",
}


def run_local(
    data: Sequence[Path],
    recipe: str,
    overrides: Sequence[str],
    *,
    out: Path,
    tracking_uri: str | None = None,
) -> dict[str, float]:
    """Run the training graph here, a step after the other.

    A run that was killed or failed, started again with the same ``out``, resumes its training
    where it was; one that ended well is never overwritten.

    Args:
        data: Dataset directories, joined if several.
        recipe: Name of a recipe.
        overrides: Its ``key=value`` changes.
        out: Directory of the run: the names of ``RESULTS``, ``logs``, ``run.json``, and until
            the run ends well ``state``.
        tracking_uri: MLflow server or database; ``mlflow.db`` in ``out`` unless given.

    Returns:
        Metrics of the evaluation and of the registration (``register/version``), flat.

    Raises:
        Finding: A check said no, in the words of the step.
        ValueError: Wrong input, likewise.
        OSError: A file is missing, or ``out`` is taken.
        RuntimeError: A step failed otherwise; the message names the log.
    """
    pipeline_config(recipe, overrides)
    for directory in data:
        read_card(directory)
    out = out.resolve()
    uri = _absolute(tracking_uri or f"sqlite:///{out / 'mlflow.db'}")
    with _only_run_in(out):
        shutil.rmtree(out / "steps", ignore_errors=True)  # of a run that did not end well
        arguments = {
            "data": [str(directory.resolve()) for directory in data],
            "recipe": recipe,
            "overrides": list(overrides),
            "tracking_uri": uri,
            "state": str(out / "state"),
        }
        log = _new_log(out / "logs")
        with _environment(_ENVIRONMENT):
            run_id = _start_run(uri, out, arguments)
            # as Kubeflow's MLflow plugin does on a cluster
            with _environment({"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": run_id}):
                try:
                    run_graph(train_pipeline(retries=0), arguments, out / "steps", log)
                finally:
                    _link_results(out)
        numbers = _numbers(out)
        record = {"arguments": arguments, "mlflow_run_id": run_id, "metrics": numbers}
        with new_file(out / _DONE) as partial:
            partial.write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(out / "state", ignore_errors=True)
    return numbers


def run_graph(graph: Any, arguments: Mapping[str, Any], root: Path, log: Path) -> None:
    """Run a graph of Python components here.

    Args:
        graph: What ``@dsl.pipeline`` made, without retries: here nothing heals by waiting.
        arguments: Of the graph.
        root: Directory of the steps' outputs.
        log: File for everything that kfp and the steps print.

    Raises:
        Finding: A step raised it; ``ValueError`` and ``OSError`` likewise.
        RuntimeError: A step failed otherwise.
    """
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with log.open("w", encoding="utf-8") as file, warnings.catch_warnings():
        # resources, which no local run has
        warnings.simplefilter("ignore")
        console = Console(file, sys.stderr, _steps(graph.pipeline_spec))
        with contextlib.redirect_stdout(console), _arguments_kept():
            failure = None
            try:
                graph(**arguments)
            except RuntimeError as stopped:
                failure = console.failure()
                if failure is None:
                    raise RuntimeError(f"kfp: {stopped}; see {log}") from stopped
        if failure is not None:
            console.say(f"{failure[0]} failed; everything it said: {log}")
            raise failure[1]


def _steps(spec: Any) -> dict[str, str]:
    """Display name of every task of a graph, by the name that kfp's local runner gives it."""
    components = spec.components
    dags = [spec.root.dag, *(c.dag for c in components.values() if c.HasField("dag"))]
    return {
        task.component_ref.name.removeprefix("comp-"): task.task_info.name
        for dag in dags
        for task in dag.tasks.values()
        if not components[task.component_ref.name].HasField("dag")
    }


@contextlib.contextmanager
def _only_run_in(out: Path) -> Iterator[None]:
    if (out / _DONE).exists():
        raise FileExistsError(f"{out}: holds a finished run; remove it or choose another --out")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: is a file, want a directory")
    if out.is_dir() and any(out.iterdir()) and not (out / "logs").is_dir():
        raise FileExistsError(f"{out}: holds other files; want a new directory as --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "logs").mkdir(exist_ok=True)
    with (out / "logs" / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"{out}: another run is at work there") from None
        yield


def _new_log(logs: Path) -> Path:
    return logs / f"{time.strftime('%Y%m%d-%H%M%S')}.log"


def _start_run(tracking_uri: str, out: Path, arguments: Mapping[str, Any]) -> str:
    from relevance.registry import start_run

    key = hashlib.sha256(json.dumps([str(out), arguments], sort_keys=True).encode()).hexdigest()
    tags = {name: " ".join(arguments[name]) for name in ("data", "overrides")}
    return start_run(
        tracking_uri, name=out.name, key=key, tags={**tags, "recipe": arguments["recipe"]}
    )


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _arguments_kept() -> Iterator[None]:
    """Give steps this interpreter under the name ``python3`` that their commands have.

    kfp instead replaces the letters ``python3`` wherever they stand, in paths and settings too.
    """
    replace = subprocess_task_handler.replace_python_executable
    with tempfile.TemporaryDirectory() as scratch:
        command = Path(scratch) / "python3"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        command.chmod(0o755)
        path = f"{scratch}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        subprocess_task_handler.replace_python_executable = lambda command, _: command
        try:
            with _environment({"PATH": path}):
                yield
        finally:
            subprocess_task_handler.replace_python_executable = replace


def _attempt(out: Path) -> Path | None:
    """Where kfp put the steps' outputs: a folder named by the time."""
    return next((out / "steps").glob("*/"), None)


def _link_results(out: Path) -> None:
    """Give results names, so that nobody has to know kfp's folders."""
    attempt = _attempt(out)
    for name, place in RESULTS.items():
        (out / name).unlink(missing_ok=True)
        if attempt is not None and (attempt / place).exists():
            (out / name).symlink_to((attempt / place).relative_to(out))


def _numbers(out: Path) -> dict[str, float]:
    attempt = _attempt(out)
    assert attempt is not None
    numbers: dict[str, float] = {}
    for step, prefix in (("evaluate", ""), ("register", "register/")):
        report = json.loads((attempt / step / "executor_output.json").read_text())
        metadata = report["artifacts"]["metrics"]["artifacts"][0]["metadata"]
        numbers |= {f"{prefix}{name}": float(value) for name, value in metadata.items()}
    return numbers


def _absolute(tracking_uri: str) -> str:
    """A relative sqlite path means the caller's directory, whatever the steps' is."""
    prefix = "sqlite:///"
    if tracking_uri.startswith(prefix):
        database = Path(tracking_uri.removeprefix(prefix)).resolve()
        database.parent.mkdir(parents=True, exist_ok=True)
        return f"{prefix}{database}"
    return tracking_uri
