"""What a step does beside its work: its numbers, its reports, its resumable state."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kfp import dsl

from relevance.registry import StepRun, flatten, step_run
from relevance.steps import locked


@dataclass(frozen=True)
class Step:
    """A step at work: what it logs appears in Kubeflow and in MLflow."""

    run: StepRun
    metrics: dsl.Metrics

    def log(self, numbers: Mapping[str, float]) -> None:
        """Record ``numbers``."""
        show(self.metrics, numbers)
        self.run.log(numbers)

    def report(self, directory: Path, page: dsl.HTML) -> None:
        """Publish ``directory`` and its ``index.html``; a step that failed early has none."""
        if (directory / "index.html").exists():
            shutil.copyfile(directory / "index.html", page.path)
            self.run.keep(directory, directory.name)


@contextlib.contextmanager
def open_step(
    name: str, settings: Mapping[str, object], metrics: dsl.Metrics, tracking_uri: str
) -> Iterator[Step]:
    """Run the block as the step ``name``.

    Args:
        name: As in MLflow.
        settings: Configs that decide the step, by the key they have in a recipe.
        metrics: Kubeflow's artifact for numbers.
        tracking_uri: See ``relevance.registry.step_run``.
    """
    flat = {
        key: value
        for section, config in settings.items()
        for key, value in flatten(config, f"{section}.").items()
    }
    with step_run(tracking_uri, name, flat) as run:
        yield Step(run, metrics)


def show(metrics: dsl.Metrics, numbers: Mapping[str, float]) -> None:
    """Record ``numbers`` in Kubeflow alone, whose JSON has no NaN and no infinity."""
    for name, value in numbers.items():
        if math.isfinite(value):
            metrics.log_metric(name, value)


@contextlib.contextmanager
def resumable(state: str, name: str) -> Iterator[Path | None]:
    """Yield where the step keeps training states; None, for beside its output, without ``state``.

    A killed run may leave its step at work for a moment; the one that takes over waits.
    """
    if not state:
        yield None
        return
    directory = Path(state) / name
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory.with_suffix(".lock"), wait=True):
        yield directory
