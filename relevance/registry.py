"""MLflow: one tree of runs per pipeline run, and checkpoints registered behind a gate.

The only module that imports mlflow. A registered version is a plain directory (safetensors,
tokenizer, config, manifest of sha256s), never a pickled model.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow.artifacts
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from relevance.configs import EvaluationConfig, RegisterConfig
from relevance.data.pairs import judged_pairs
from relevance.data.tables import data_hash, read_card
from relevance.errors import Finding
from relevance.evaluation import paired_difference
from relevance.manifest import verify
from relevance.metrics import METRICS

EXPERIMENT = "querylift"
CHAMPION = "champion"
CHALLENGER = "challenger"
_JOB = "querylift.job"
_CHAMPION_COLUMN = "registered champion"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def open_run(tracking_uri: str, *, name: str, job: str) -> str:
    """Find or open the parent run of a pipeline run.

    A run that Kubeflow's own MLflow plugin injected (``MLFLOW_RUN_ID``) is adopted; else the
    one tagged with ``job``, which all steps of one pipeline run share; else a new one.

    Args:
        tracking_uri: Server or database; empty uses MLflow's own environment.
        name: Name of a new run.
        job: Id of the pipeline run.

    Returns:
        Run id.
    """
    injected = os.environ.get("MLFLOW_RUN_ID")
    if injected:
        return injected
    client = _client(tracking_uri)
    experiment = _experiment(client, tracking_uri)
    found = client.search_runs([experiment], f"tags.`{_JOB}` = '{job}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = client.create_run(experiment, tags={_JOB: job}, run_name=name)
    return str(run.info.run_id)


def log_step(
    tracking_uri: str,
    *,
    job: str,
    step: str,
    settings: object,
    metrics: Mapping[str, float],
    reports: Path | None = None,
) -> str:
    """Record one finished step as a child of the pipeline's run; returns the child's id."""
    parent = open_run(tracking_uri, name="train", job=job)
    client = _client(tracking_uri)
    experiment = client.get_run(parent).info.experiment_id
    child = client.create_run(
        experiment, tags={"mlflow.parentRunId": parent, "querylift.step": step}, run_name=step
    ).info.run_id
    now = int(time.time() * 1000)
    numbers = [Metric(metric_name(k), float(v), now, 0) for k, v in metrics.items()]
    params = [Param(key, str(value)[:500]) for key, value in flatten(settings).items()]
    for start in range(0, max(len(numbers), len(params)), 100):  # the server's limit a call
        part = slice(start, start + 100)
        client.log_batch(child, metrics=numbers[part], params=params[part])
    if reports is not None:
        client.log_artifacts(child, str(reports), "reports")
    client.set_terminated(child)
    return str(child)


def close_run(tracking_uri: str, *, job: str, succeeded: bool) -> str:
    """End the pipeline's run, unless it is not ours to end; returns its id."""
    run = open_run(tracking_uri, name="train", job=job)
    if not os.environ.get("MLFLOW_RUN_ID"):
        _client(tracking_uri).set_terminated(run, "FINISHED" if succeeded else "FAILED")
    return run


def register(
    config: RegisterConfig,
    checkpoint: Path,
    data: Path,
    evaluation: Path,
    *,
    tracking_uri: str,
    model: str | None = None,
    job: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Register ``checkpoint`` as challenger if it beats the champion.

    The champion is scored on the very pairs of the evaluation, and the paired interval of the
    difference (bootstrap over queries) must lie on the better side of zero. Without a
    champion there is nothing to beat.

    Args:
        config: Name and metric.
        checkpoint: Checkpoint to register.
        data: Dataset it was evaluated on.
        evaluation: Directory that ``evaluate`` wrote.
        tracking_uri: MLflow server or database.
        model: Its column in the evaluation's scores; the checkpoint's folder name unless given.
        job: Pipeline run to record as its origin.
        tags: More lineage, for example ``recipe`` and ``image``.

    Returns:
        ``register/version``, and the difference with its interval where there is a champion.

    Raises:
        Finding: The champion is not beaten; nothing is registered.
        ValueError: Unknown metric, a changed checkpoint, or scores that lack the model.
    """
    verify(checkpoint)
    if config.metric not in METRICS:
        raise ValueError(f"metric {config.metric!r}: unknown; there are {', '.join(METRICS)}")
    client = _client(tracking_uri)
    numbers = _gate(config, client, tracking_uri, data, evaluation, model or checkpoint.name)
    run = open_run(tracking_uri, name="register", job=job or f"register-{time.time_ns()}")
    client.log_artifacts(run, str(checkpoint), "checkpoint")
    source = f"{client.get_run(run).info.artifact_uri}/checkpoint"
    card = read_card(data)
    lineage = {
        "data": card.name,
        "data_hash": data_hash(data),
        "is_generated": str(card.is_generated).lower(),
        "code_version": code_version(),
        "run": run,
        **(tags or {}),
        **{metric_name(name): f"{value:.6f}" for name, value in numbers.items()},
    }
    try:
        client.create_registered_model(config.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(config.name, source, run_id=run, tags=lineage).version
    client.set_registered_model_alias(config.name, CHALLENGER, version)
    if job is None:
        client.set_terminated(run)
    return {"register/version": float(version), **numbers}


def download(tracking_uri: str, model_uri: str, into: Path) -> Path:
    """Fetch a registered checkpoint and check its manifest.

    Args:
        tracking_uri: MLflow server or database.
        model_uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        into: Existing directory to put it in.

    Returns:
        The checkpoint.

    Raises:
        ValueError: Another kind of address, or a file differs from the manifest.
    """
    asked = _MODEL_URI.fullmatch(model_uri)
    if asked is None:
        raise ValueError(f"{model_uri}: want models:/NAME@ALIAS or models:/NAME/VERSION")
    client = _client(tracking_uri)
    version = asked["version"]
    if asked["alias"]:
        version = client.get_model_version_by_alias(asked["name"], asked["alias"]).version
    # mlflow 3.17 resolves models:/ in its global registry, whatever registry_uri it is passed
    source = client.get_model_version_download_uri(asked["name"], str(version))
    path = mlflow.artifacts.download_artifacts(
        source, dst_path=str(into), tracking_uri=tracking_uri or None
    )
    verify(Path(path))
    return Path(path)


def flatten(settings: object, prefix: str = "") -> dict[str, Any]:
    """Nested configs as ``dotted.key: value``."""
    if not is_dataclass(settings):
        return {prefix.rstrip("."): settings}
    flat: dict[str, Any] = {}
    for item in fields(settings):
        flat |= flatten(getattr(settings, item.name), f"{prefix}{item.name}.")
    return flat


def metric_name(name: str) -> str:
    """``name`` as MLflow allows it: ``ndcg@10`` becomes ``ndcg_at_10``."""
    return name.replace("@", "_at_")


def code_version() -> str:
    """Commit of the working tree, or the installed version outside of one."""
    version = importlib.metadata.version("querylift")
    here = Path(__file__).resolve().parent
    git = shutil.which("git")
    if git is None:
        return version
    described = subprocess.run(
        [git, "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit = described.stdout.strip()
    return f"{version}+{commit}" if described.returncode == 0 and commit else version


def _gate(
    config: RegisterConfig,
    client: MlflowClient,
    tracking_uri: str,
    data: Path,
    evaluation: Path,
    model: str,
) -> dict[str, float]:
    # here, not above: steps that only log run in an image without torch
    from relevance.inference import score_pairs
    from relevance.models import load

    file = evaluation / "scores.parquet"
    scores = pd.read_parquet(file)
    if model not in scores:
        raise ValueError(f"{file}: no column {model!r}; it has {', '.join(scores.columns)}")
    try:
        champion = client.get_model_version_by_alias(config.name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return {}
        raise
    with tempfile.TemporaryDirectory() as folder:
        path = download(tracking_uri, f"models:/{config.name}/{champion.version}", Path(folder))
        texts = judged_pairs(data)[["query_id", "item_id", "query", "title"]]
        pairs = scores[["query_id", "item_id"]].merge(texts, how="left")
        if pairs["title"].isna().any():
            missing = pairs.loc[pairs["title"].isna(), "item_id"].iloc[0]
            raise ValueError(f"{file}: item {missing!r} is not in {data}; want its own evaluation")
        scores[_CHAMPION_COLUMN] = score_pairs(
            load(path), list(pairs["query"]), list(pairs["title"])
        )
    difference, low, high = paired_difference(
        scores, config.metric, model, _CHAMPION_COLUMN, EvaluationConfig()
    )
    beaten = low > 0 if METRICS[config.metric].is_higher_better else high < 0
    if not beaten:
        raise Finding(
            f"gate: {model} does not beat champion {config.name} v{champion.version} on "
            f"{config.metric}: difference {difference:+.4f} [{low:+.4f}, {high:+.4f}], "
            "want an interval on the better side of 0; nothing was registered"
        )
    return {
        f"register/{config.metric}_difference": difference,
        f"register/{config.metric}_difference_low": low,
        f"register/{config.metric}_difference_high": high,
    }


def _client(tracking_uri: str) -> MlflowClient:
    uri = tracking_uri or None
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(client: MlflowClient, tracking_uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if tracking_uri.startswith("sqlite:///"):
        # beside the database, not in whatever directory the command was started from
        database = Path(urlparse(tracking_uri).path[1:] or "mlflow.db")
        location = (database.resolve().parent / "mlflow-artifacts").as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))
