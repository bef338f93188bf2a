"""MLflow: one tree of runs per pipeline run, and checkpoints registered behind a gate.

The only module that imports mlflow. A registered version is a plain directory (safetensors,
tokenizer, config, manifest of sha256s), never a pickled model.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# before the import: mlflow reports home from its first line on
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from relevance.checkpoints import check_checkpoint
from relevance.configs import EvaluationConfig, RegisterConfig
from relevance.data.tables import data_hash, read_card
from relevance.errors import Finding
from relevance.files import sha256
from relevance.manifest import MANIFEST, verify

if TYPE_CHECKING:
    import pandas as pd

EXPERIMENT = "querylift"
CHAMPION = "champion"
CHALLENGER = "challenger"

_SQLITE = "sqlite:///"
_PARENT = "mlflow.parentRunId"
_STEP = "querylift.step"
_PIPELINE = "querylift.pipeline_run"
_COLUMN = "registered champion"
_PROBED = 64
"""Pairs scored again to prove that an evaluation is of the checkpoint at hand."""
_PER_CALL = 100
"""Params or metrics that a server takes at once."""
_DIGITS = re.compile(r"[0-9a-f]{16}")
_URI = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, and the alias that led to it."""

    name: str
    version: str
    """Number, as a string."""
    alias: str = ""
    """Empty where the version was asked for by number."""


@dataclass(frozen=True)
class StepRun:
    """The MLflow run of one step."""

    client: MlflowClient
    run_id: str

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record ``metrics``."""
        now = int(time.time() * 1000)
        rows = [Metric(metric_name(name), float(v), now, 0) for name, v in metrics.items()]
        for start in range(0, len(rows), _PER_CALL):
            self.client.log_batch(self.run_id, metrics=rows[start : start + _PER_CALL])

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Record ``settings`` as params."""
        rows = [Param(name, str(value)) for name, value in settings.items()]
        for start in range(0, len(rows), _PER_CALL):
            self.client.log_batch(self.run_id, params=rows[start : start + _PER_CALL])

    def keep(self, directory: Path, name: str) -> None:
        """Store ``directory`` as the artifact ``name``."""
        self.client.log_artifacts(self.run_id, str(directory), name)


@contextlib.contextmanager
def step_run(
    tracking_uri: str, step: str, settings: Mapping[str, Any] | None = None
) -> Iterator[StepRun]:
    """Open the run of ``step`` in the tree of its pipeline run, and close it.

    Where the run belongs is in the environment. ``MLFLOW_RUN_ID``, as Kubeflow's MLflow plugin
    injects it, is the step's own run if it has a parent, and is adopted; else it is the
    pipeline's, and the step's run is made below it. Without it, ``KFP_RUN_ID`` names the
    pipeline run whose steps share a parent. Without that the run stands alone. A step that is
    tried again goes on with its run.

    Args:
        tracking_uri: MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``.
        step: Name of the step.
        settings: Params of the run, flat; see ``flatten``.

    Raises:
        ValueError: No tracking URI.
        OSError: MLflow cannot be reached, or refuses.
    """
    with _plain_errors(tracking_uri):
        client = _client(tracking_uri)
        run_id, is_ours = _find_step_run(client, step)
        run = StepRun(client, run_id)
        run.log_settings(settings or {})
    try:
        yield run
    except BaseException as error:
        # the step's own error matters more than a tracking server that is down
        with contextlib.suppress(MlflowException):
            client.set_tag(run_id, "querylift.error", f"{type(error).__name__}: {error}"[:5_000])
            if is_ours:
                client.set_terminated(run_id, "FAILED")
        raise
    if is_ours:
        with _plain_errors(tracking_uri):
            client.set_terminated(run_id)


def start_run(tracking_uri: str, *, name: str, key: str, tags: Mapping[str, str]) -> str:
    """Open the parent run of a pipeline run, or go on with the one under ``key``.

    Args:
        tracking_uri: MLflow server or database.
        name: Name of a new run.
        key: What makes the pipeline run the same one when it is started again.
        tags: What it runs, for people.

    Returns:
        Run id.
    """
    with _plain_errors(tracking_uri):
        client = _client(tracking_uri)
        run_id = _parent(client, key, name)
        for tag, value in tags.items():
            client.set_tag(run_id, tag, value[:5_000])
        client.update_run(run_id, status="RUNNING")
    return run_id


def finish_run(tracking_uri: str, *, is_success: bool) -> str:
    """Close the parent run that the environment names; a plugin's run it leaves to the plugin.

    Returns:
        Where to look at the run.
    """
    with _plain_errors(tracking_uri):
        client = _client(tracking_uri)
        run_id = os.environ.get("MLFLOW_RUN_ID") or _parent(client, _pipeline_key(), "pipeline")
        run = client.get_run(run_id)
        if _PARENT in run.data.tags:
            run_id = run.data.tags[_PARENT]
        else:
            client.set_terminated(run_id, "FINISHED" if is_success else "FAILED")
        uri = _uri(tracking_uri)
        if uri.startswith("http"):
            return f"{uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
        return f"run {run_id}: mlflow ui --backend-store-uri {uri}"


def register(
    config: RegisterConfig,
    checkpoint: Path,
    data: Path,
    evaluation: Path,
    *,
    tracking_uri: str = "",
    model: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Register ``checkpoint`` as challenger if it beats the champion.

    The champion is scored on the very pairs of the evaluation, and the paired interval of the
    difference (bootstrap over queries) must lie on the better side of 0. Without a champion
    there is nothing to beat, and the version says so.

    Args:
        config: Name and metric.
        checkpoint: Checkpoint to register.
        data: Dataset it was evaluated on.
        evaluation: Directory that ``evaluate`` wrote.
        tracking_uri: MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``.
        model: Its column in the evaluation's scores; the checkpoint's directory name unless
            given.
        tags: More lineage, for example ``recipe`` and ``image``.

    Returns:
        ``version``, the value of the metric, and where there is a champion the difference with
        its interval.

    Raises:
        Finding: The champion is not beaten; nothing is registered.
        ValueError: Unknown metric, a changed byte in the checkpoint or the champion, or an
            evaluation of other data or of another checkpoint.
        OSError: A file is missing, or MLflow cannot be reached.
    """
    from relevance.metrics import find

    find(config.metric)
    verify(checkpoint)
    name = model or checkpoint.resolve().name
    scores, report = _read_evaluation(evaluation, data, name)
    _check_same_model(checkpoint, scores, name, evaluation)
    with step_run(tracking_uri, "register", flatten(config, "register.")) as run:
        numbers = {config.metric: _value(report, name, config.metric)}
        champion = _alias_version(run.client, config.name, CHAMPION)
        compared = f"none: {config.name} had no champion"
        if champion is not None:
            numbers |= _difference(config, champion, tracking_uri, scores, report, name)
            compared = f"v{champion}"
        with _plain_errors(tracking_uri):
            run.log(numbers)
        if champion is not None:
            _gate(config, champion, name, numbers)
        with _plain_errors(tracking_uri):
            run.keep(checkpoint, "checkpoint")
            lineage = {
                "beaten_champion": compared,
                "code_version": code_version(),
                "data_hash": data_hash(data),
                "dataset": read_card(data).name,
                "is_generated": str(read_card(data).is_generated).lower(),
                "manifest_sha256": sha256(checkpoint / MANIFEST),
                "run_id": run.run_id,
                **{metric_name(metric): f"{value:.6g}" for metric, value in numbers.items()},
                **{key: value for key, value in (tags or {}).items() if value},
            }
            version = _add_version(run, config.name, lineage)
        numbers["version"] = float(version)
        run.log({"version": float(version)})
    print(f"registered {config.name} v{version} as {CHALLENGER}; champion beaten: {compared}")
    return numbers


def resolve(uri: str, *, tracking_uri: str = "") -> Registered:
    """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` means now.

    Args:
        uri: One of the two.
        tracking_uri: MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``.

    Raises:
        ValueError: Another form, or no tracking URI.
        OSError: No such version or alias, or MLflow cannot be reached.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ValueError(f"{uri!r}: want models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = parts["name"], parts["alias"], parts["version"]
    if alias is None:
        return Registered(name, version)
    found = alias_version(name, alias, tracking_uri=tracking_uri)
    if found is None:
        raise FileNotFoundError(
            f"{uri}: MLflow at {_uri(tracking_uri)} has no model {name!r} "
            f"with an alias {alias!r}; register one, or move the alias"
        )
    return Registered(name, found, alias)


def registered_versions(
    models: Collection[str], *, tracking_uri: str = ""
) -> Mapping[str, Registered]:
    """Where models are registered that are known by what scorers answer as their version.

    Args:
        models: First 16 digits of the SHA-256 of checkpoints' manifests; anything else is in no
            registry.
        tracking_uri: MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``.

    Returns:
        Those that are registered; of one that is registered again and again the first version.

    Raises:
        ValueError: No tracking URI.
        OSError: MLflow cannot be reached.
    """
    found: dict[str, Registered] = {}
    with _plain_errors(tracking_uri):
        client = _existing(tracking_uri)
        for model in sorted(filter(_DIGITS.fullmatch, models)):
            wanted = f"tags.manifest_sha256 LIKE '{model}%'"
            if versions := client.search_model_versions(wanted):
                first = min(versions, key=lambda it: (it.creation_timestamp, it.name))
                found[model] = Registered(first.name, str(first.version))
    return found


def alias_version(name: str, alias: str, *, tracking_uri: str = "") -> str | None:
    """Number of the version that ``alias`` points to now; None without such a model or alias.

    Raises:
        ValueError: No tracking URI.
        OSError: MLflow cannot be reached.
    """
    with _plain_errors(tracking_uri):
        return _alias_version(_existing(tracking_uri), name, alias)


def download(name: str, version: str, into: Path, *, tracking_uri: str = "") -> Path:
    """Fetch a registered checkpoint and check every file; see ``check_checkpoint``.

    Args:
        name: Registered model.
        version: Number or alias, for example ``champion``.
        into: Directory to fetch it into.
        tracking_uri: MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``.

    Raises:
        ValueError: A byte differs from the manifest, or a file could hold code.
        OSError: No such version, no checkpoint of ours, or MLflow cannot be reached.
    """
    into.mkdir(parents=True, exist_ok=True)
    with _plain_errors(tracking_uri):
        client = _existing(tracking_uri)
        if not version.isdigit():
            version = str(client.get_model_version_by_alias(name, version).version)
        # not models:/NAME/VERSION, for which mlflow 3.17 asks the process's registry instead
        source = client.get_model_version_download_uri(name, version)
        path = mlflow.artifacts.download_artifacts(
            source, dst_path=str(into), tracking_uri=_uri(tracking_uri)
        )
    check_checkpoint(Path(path))
    return Path(path)


def flatten(settings: object, prefix: str = "") -> dict[str, Any]:
    """Nested configs as ``dotted.key: value``.

    >>> flatten(RegisterConfig(), "register.")
    {'register.name': 'relevance', 'register.metric': 'roc_auc'}
    """
    if not is_dataclass(settings):
        return {prefix.rstrip("."): settings}
    flat: dict[str, Any] = {}
    for item in fields(settings):
        flat |= flatten(getattr(settings, item.name), f"{prefix}{item.name}.")
    return flat


def metric_name(name: str) -> str:
    """``name`` as MLflow allows it.

    >>> metric_name("student/ndcg@10")
    'student/ndcg_at_10'
    """
    return name.replace("@", "_at_")


def code_version() -> str:
    """Commit of the working tree, or the installed version outside of one."""
    root = Path(__file__).resolve().parents[1]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"]
        with contextlib.suppress(OSError):
            described = subprocess.run(command, capture_output=True, text=True, check=False)
            if described.returncode == 0:
                return described.stdout.strip()
    try:
        return importlib.metadata.version("querylift")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _read_evaluation(evaluation: Path, data: Path, model: str) -> tuple[pd.DataFrame, Any]:
    """Scores with their texts, and the report, after checking that they are of ``data``."""
    import pandas as pd

    from relevance.data.pairs import judged_pairs

    report = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    if report["data_hash"] != data_hash(data):
        raise ValueError(
            f"{evaluation}: made of data {report['data_hash'][:12]}…, but {data} is "
            f"{data_hash(data)[:12]}…; evaluate on this dataset"
        )
    file = evaluation / "scores.parquet"
    scores = pd.read_parquet(file)
    if model not in report["models"] or model not in scores:
        raise ValueError(
            f"{file}: no column {model!r} for the checkpoint; there are "
            f"{', '.join(report['models'])}"
        )
    texts = judged_pairs(data)[["query_id", "item_id", "query", "title"]]
    return scores.merge(texts, on=["query_id", "item_id"], how="left", validate="1:1"), report


def _check_same_model(checkpoint: Path, scores: pd.DataFrame, model: str, evaluation: Path) -> None:
    """The gate must not judge one model and register another."""
    import numpy as np

    probe = scores.sample(min(_PROBED, len(scores)), random_state=0)
    given = probe[model].to_numpy(float)
    found = _scores(checkpoint, probe)
    # another processor or batch moves a logit by far less
    if not np.allclose(given, found, rtol=0.02, atol=0.02):
        row = int(np.argmax(np.abs(given - found)))
        raise ValueError(
            f"{evaluation}: column {model!r} is not of {checkpoint}: query "
            f"{probe['query'].iloc[row]!r} has score {given[row]:.4f} there, "
            f"but the checkpoint gives {found[row]:.4f}; evaluate this checkpoint"
        )


def _scores(checkpoint: Path, pairs: pd.DataFrame) -> Any:
    from relevance.inference import load_scorer, score_pairs

    return score_pairs(load_scorer(checkpoint), list(pairs["query"]), list(pairs["title"]))


def _difference(
    config: RegisterConfig,
    champion: str,
    tracking_uri: str,
    scores: pd.DataFrame,
    report: Any,
    model: str,
) -> dict[str, float]:
    from relevance.evaluation import paired_difference

    with tempfile.TemporaryDirectory() as scratch:
        path = download(config.name, champion, Path(scratch), tracking_uri=tracking_uri)
        both = scores.assign(**{_COLUMN: _scores(path, scores)})
    settings = EvaluationConfig(
        split=report["split"],
        relevant_grade=report["relevant_grade"],
        gains=tuple(report["gains"]),
        resamples=report["resamples"],
        seed=report["seed"],
    )
    value, low, high = paired_difference(both, config.metric, model, _COLUMN, settings)
    return {"difference": value, "difference_low": low, "difference_high": high}


def _gate(config: RegisterConfig, champion: str, model: str, numbers: Mapping[str, float]) -> None:
    from relevance.metrics import find

    value, difference = numbers[config.metric], numbers["difference"]
    low, high = numbers["difference_low"], numbers["difference_high"]
    is_higher_better = find(config.metric).is_higher_better
    # an undefined bound compares false
    if not (low > 0 if is_higher_better else high < 0):
        raise Finding(
            f"gate: {model}'s {config.metric} {value:.4f} does not beat champion v{champion}'s "
            f"{value - difference:.4f}: difference {difference:+.4f} [{low:+.4f}, {high:+.4f}], "
            f"want an interval {'above' if is_higher_better else 'below'} 0; "
            "nothing was registered"
        )


def _value(report: Any, model: str, metric: str) -> float:
    value = report["models"][model][metric]["value"]
    return float("nan") if value is None else float(value)


def _alias_version(client: MlflowClient, name: str, alias: str) -> str | None:
    # asked through the model: a missing alias answers with another error code on every backend
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise OSError(f"MLflow: {error.message}") from error
    version = model.aliases.get(alias)
    return None if version is None else str(version)


def _add_version(run: StepRun, name: str, tags: Mapping[str, str]) -> str:
    try:
        run.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.client.get_run(run.run_id).info.artifact_uri}/checkpoint"
    version = run.client.create_model_version(name, source, run_id=run.run_id, tags=dict(tags))
    run.client.set_registered_model_alias(name, CHALLENGER, version.version)
    return str(version.version)


def _find_step_run(client: MlflowClient, step: str) -> tuple[str, bool]:
    """Id of the step's run, and whether it is ours to close."""
    injected = os.environ.get("MLFLOW_RUN_ID")
    if injected:
        run = client.get_run(injected)
        if _PARENT in run.data.tags:
            return injected, False
        parent, experiment = injected, run.info.experiment_id
    else:
        experiment = _experiment(client)
        if not _pipeline_key():
            return client.create_run(experiment, run_name=step).info.run_id, True
        parent = _parent(client, _pipeline_key(), "pipeline")
    found = client.search_runs(
        [experiment], f"tags.`{_PARENT}` = '{parent}' and tags.`{_STEP}` = '{step}'", max_results=1
    )
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id, True
    tags = {_PARENT: parent, _STEP: step}
    return client.create_run(experiment, tags=tags, run_name=step).info.run_id, True


def _pipeline_key() -> str:
    return os.environ.get("KFP_RUN_ID", "")


def _parent(client: MlflowClient, key: str, name: str) -> str:
    """The run tagged with ``key``, made by whoever asks first: a step that runs alone."""
    experiment = _experiment(client)
    found = client.search_runs([experiment], f"tags.`{_PIPELINE}` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(client.create_run(experiment, tags={_PIPELINE: key}, run_name=name).info.run_id)


def _uri(tracking_uri: str) -> str:
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ValueError(
            "no MLflow: give a tracking URI, for example sqlite:///mlflow.db, "
            "or set MLFLOW_TRACKING_URI"
        )
    return uri


def _client(tracking_uri: str) -> MlflowClient:
    uri = _uri(tracking_uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _existing(tracking_uri: str) -> MlflowClient:
    """A client that only reads: for a database that is missing, mlflow would make an empty one."""
    uri = _uri(tracking_uri)
    database = Path(uri.removeprefix(_SQLITE))
    if uri.startswith(_SQLITE) and not database.exists():
        raise FileNotFoundError(f"MLflow at {uri}: {database} is missing")
    return _client(tracking_uri)


def _experiment(client: MlflowClient) -> str:
    injected = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if injected:
        return injected
    location = None
    if client.tracking_uri.startswith(_SQLITE):
        # beside the database, not in whatever directory the command was started from
        database = Path(client.tracking_uri.removeprefix(_SQLITE)).resolve()
        location = (database.parent / "mlflow-artifacts").as_uri()
    # steps of several pipeline runs may ask for the first time at once
    for _ in range(2):
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        with contextlib.suppress(MlflowException):
            client.create_experiment(EXPERIMENT, artifact_location=location)
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


@contextlib.contextmanager
def _plain_errors(tracking_uri: str) -> Iterator[None]:
    """MLflow's errors in one line, as an ``OSError`` that names the server."""
    try:
        yield
    except MlflowException as error:
        raise OSError(f"MLflow at {_uri(tracking_uri)}: {error.message}") from error
