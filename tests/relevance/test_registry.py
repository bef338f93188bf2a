"""Runs and models in a real MLflow database."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from relevance.configs import FinetuneConfig, RegisterConfig
from relevance.data.pairs import judged_pairs
from relevance.data.tables import data_hash
from relevance.errors import Finding
from relevance.inference import score_pairs
from relevance.models import load, save
from relevance.models.bert import BertConfig
from relevance.registry import (
    CHALLENGER,
    CHAMPION,
    EXPERIMENT,
    close_run,
    code_version,
    download,
    flatten,
    log_step,
    metric_name,
    open_run,
    register,
)

PICKLES = {".bin", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}


@dataclass(frozen=True)
class Server:
    """A database and its client."""

    uri: str
    client: MlflowClient


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One for all tests, since a new database migrates for ten seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    return Server(uri, MlflowClient(tracking_uri=uri, registry_uri=uri))


@pytest.fixture(autouse=True)
def _no_injected_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.fixture
def config() -> RegisterConfig:
    """A model name that no other test uses."""
    return RegisterConfig(name=f"model-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """A cross-encoder that has learnt nothing."""
    torch.manual_seed(1)
    made = tmp_path_factory.mktemp("checkpoints") / "student"
    save(BertConfig().start(encoder), made)
    return made


@pytest.fixture(scope="session")
def write_evaluation(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path
) -> Callable[[Callable[[pd.DataFrame], np.ndarray]], Path]:
    """Write the scores of an evaluation, ``student`` having what a function of the pairs says."""

    def write(score: Callable[[pd.DataFrame], np.ndarray]) -> Path:
        pairs = judged_pairs(tiny_data)
        scores = pairs[["query_id", "item_id", "source", "grade"]].assign(student=score(pairs))
        evaluation = tmp_path_factory.mktemp("evaluation")
        scores.to_parquet(evaluation / "scores.parquet", index=False)
        return evaluation

    return write


@pytest.fixture(scope="session")
def perfect(write_evaluation: Callable[..., Path]) -> Path:
    return write_evaluation(lambda pairs: pairs["grade"].to_numpy(float))


@pytest.fixture(scope="session")
def reversed_(write_evaluation: Callable[..., Path]) -> Path:
    return write_evaluation(lambda pairs: -pairs["grade"].to_numpy(float))


def versions(server: Server, name: str) -> list[int]:
    return sorted(int(v.version) for v in server.client.search_model_versions(f"name = '{name}'"))


def new_job() -> str:
    return f"job-{uuid.uuid4().hex}"


def test_steps_of_a_job_are_children_of_one_run(server: Server, tmp_path: Path) -> None:
    job = new_job()
    (tmp_path / "index.html").write_text("<p>report</p>")
    children = [
        log_step(
            server.uri,
            job=job,
            step=step,
            settings=FinetuneConfig(),
            metrics={"student/ndcg@10": 0.25, "pairs": 7.0},
            reports=tmp_path,
        )
        for step in ("finetune-dual", "evaluate")
    ]
    parent = close_run(server.uri, job=job, succeeded=True)

    assert server.client.get_run(parent).info.status == "FINISHED"
    experiment = server.client.get_experiment_by_name(EXPERIMENT)
    nested = server.client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent}'"
    )
    assert {run.info.run_id for run in nested} == set(children)
    child = server.client.get_run(children[1])
    assert child.info.status == "FINISHED"
    assert child.info.run_name == "evaluate"
    assert child.data.metrics == {"student/ndcg_at_10": 0.25, "pairs": 7.0}
    assert child.data.params == {k: str(v) for k, v in flatten(FinetuneConfig()).items()}
    assert child.data.params["weak.negatives"] == "3"
    assert [file.path for file in server.client.list_artifacts(children[1], "reports")] == [
        "reports/index.html"
    ]


def test_more_numbers_than_a_call_takes_arrive_all(server: Server) -> None:
    metrics = {f"m{i}": float(i) for i in range(230)}
    child = log_step(
        server.uri, job=new_job(), step="evaluate", settings=RegisterConfig(), metrics=metrics
    )
    assert server.client.get_run(child).data.metrics == metrics


def test_a_job_has_one_run_however_often_it_is_asked_for(server: Server) -> None:
    job = new_job()
    first = open_run(server.uri, name="train", job=job)
    assert open_run(server.uri, name="train", job=job) == first
    assert open_run(server.uri, name="train", job=new_job()) != first


def test_a_failed_pipeline_leaves_a_failed_run(server: Server) -> None:
    run = close_run(server.uri, job=new_job(), succeeded=False)
    assert server.client.get_run(run).info.status == "FAILED"


def test_an_injected_run_is_adopted_and_not_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = server.client.create_experiment(f"other-{uuid.uuid4().hex[:8]}")
    injected = server.client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    job = new_job()

    assert open_run(server.uri, name="train", job=job) == injected
    child = log_step(server.uri, job=job, step="pretrain", settings=RegisterConfig(), metrics={})
    assert close_run(server.uri, job=job, succeeded=False) == injected

    assert server.client.get_run(injected).info.status == "RUNNING"
    run = server.client.get_run(child)
    assert run.info.experiment_id == experiment
    assert run.data.tags["mlflow.parentRunId"] == injected


def test_artifacts_lie_beside_the_database(server: Server) -> None:
    run = server.client.get_run(open_run(server.uri, name="train", job=new_job()))
    database = Path(server.uri.removeprefix("sqlite:///"))
    assert run.info.artifact_uri.startswith((database.parent / "mlflow-artifacts").as_uri())


def test_without_a_champion_the_first_version_is_the_challenger(
    server: Server,
    config: RegisterConfig,
    checkpoint: Path,
    tiny_data: Path,
    reversed_: Path,
    tmp_path: Path,
) -> None:
    job = new_job()
    numbers = register(
        config,
        checkpoint,
        tiny_data,
        reversed_,
        tracking_uri=server.uri,
        job=job,
        tags={"recipe": "smoke", "overrides": "", "image": "train@sha256:0"},
    )

    assert numbers == {"register/version": 1.0}
    version = server.client.get_model_version_by_alias(config.name, CHALLENGER)
    assert int(version.version) == 1
    run = open_run(server.uri, name="train", job=job)
    assert version.run_id == run
    assert version.tags == {
        "data": "tiny",
        "data_hash": data_hash(tiny_data),
        "is_generated": "true",
        "code_version": code_version(),
        "run": run,
        "recipe": "smoke",
        "overrides": "",
        "image": "train@sha256:0",
    }
    # the pipeline's run goes on: its exit handler ends it
    assert server.client.get_run(run).info.status == "RUNNING"

    fetched = download(server.uri, f"models:/{config.name}@{CHALLENGER}", tmp_path)
    files = {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert files == {p.relative_to(checkpoint) for p in checkpoint.rglob("*") if p.is_file()}
    assert not [name for name in files if name.suffix in PICKLES]
    pairs = judged_pairs(tiny_data).head(40)
    texts = list(pairs["query"]), list(pairs["title"])
    np.testing.assert_array_equal(
        score_pairs(load(fetched), *texts), score_pairs(load(checkpoint), *texts)
    )


def test_registering_alone_leaves_a_finished_run(
    server: Server, config: RegisterConfig, checkpoint: Path, tiny_data: Path, perfect: Path
) -> None:
    register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri)
    version = server.client.get_model_version_by_alias(config.name, CHALLENGER)
    assert server.client.get_run(version.run_id).info.status == "FINISHED"


def test_who_beats_the_champion_is_registered_beside_it(
    server: Server, config: RegisterConfig, checkpoint: Path, tiny_data: Path, perfect: Path
) -> None:
    register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri)
    server.client.set_registered_model_alias(config.name, CHAMPION, "1")

    numbers = register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri)

    assert numbers["register/version"] == 2
    low = numbers["register/roc_auc_difference_low"]
    assert 0 < low <= numbers["register/roc_auc_difference"]
    assert numbers["register/roc_auc_difference"] <= numbers["register/roc_auc_difference_high"]
    challenger = server.client.get_model_version_by_alias(config.name, CHALLENGER)
    assert int(challenger.version) == 2
    assert float(challenger.tags["register/roc_auc_difference_low"]) == pytest.approx(low, abs=1e-6)
    assert server.client.get_model_version_by_alias(config.name, CHAMPION).version in (1, "1")


def test_who_does_not_beat_the_champion_is_not_registered(
    server: Server,
    config: RegisterConfig,
    checkpoint: Path,
    tiny_data: Path,
    perfect: Path,
    reversed_: Path,
) -> None:
    register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri)
    server.client.set_registered_model_alias(config.name, CHAMPION, "1")

    with pytest.raises(Finding) as caught:
        register(config, checkpoint, tiny_data, reversed_, tracking_uri=server.uri)

    message = str(caught.value)
    assert message.startswith(f"gate: student does not beat champion {config.name} v1 on roc_auc")
    assert "difference -0." in message
    assert "[-0." in message
    assert message.endswith("nothing was registered")
    assert versions(server, config.name) == [1]
    challenger = server.client.get_model_version_by_alias(config.name, CHALLENGER)
    assert int(challenger.version) == 1


def test_a_tie_with_the_champion_is_no_victory(
    server: Server,
    config: RegisterConfig,
    checkpoint: Path,
    tiny_data: Path,
    write_evaluation: Callable[..., Path],
) -> None:
    own = write_evaluation(
        lambda pairs: score_pairs(load(checkpoint), list(pairs["query"]), list(pairs["title"]))
    )
    register(config, checkpoint, tiny_data, own, tracking_uri=server.uri)
    server.client.set_registered_model_alias(config.name, CHAMPION, "1")
    with pytest.raises(Finding, match=r"difference \+0\.0000 \[\+0\.0000, \+0\.0000\]"):
        register(config, checkpoint, tiny_data, own, tracking_uri=server.uri)


def test_scores_of_another_dataset_are_refused(
    server: Server,
    config: RegisterConfig,
    checkpoint: Path,
    tiny_data: Path,
    perfect: Path,
    tmp_path: Path,
) -> None:
    register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri)
    server.client.set_registered_model_alias(config.name, CHAMPION, "1")
    scores = pd.read_parquet(perfect / "scores.parquet")
    scores.loc[3, "item_id"] = "elsewhere"
    scores.to_parquet(tmp_path / "scores.parquet")
    with pytest.raises(ValueError, match=r"scores\.parquet: item 'elsewhere' is not in"):
        register(config, checkpoint, tiny_data, tmp_path, tracking_uri=server.uri)
    assert versions(server, config.name) == [1]


def test_a_changed_byte_is_refused(
    server: Server,
    config: RegisterConfig,
    checkpoint: Path,
    tiny_data: Path,
    perfect: Path,
    tmp_path: Path,
) -> None:
    damaged = tmp_path / "student"
    shutil.copytree(checkpoint, damaged)
    weights = next(damaged.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"safetensors: sha256 is .* the file was changed"):
        register(config, damaged, tiny_data, perfect, tracking_uri=server.uri)
    assert versions(server, config.name) == []


def test_an_unknown_metric_is_refused(
    server: Server, config: RegisterConfig, checkpoint: Path, tiny_data: Path, perfect: Path
) -> None:
    with pytest.raises(ValueError, match=r"metric 'auc': unknown; there are .*roc_auc"):
        register(
            RegisterConfig(name=config.name, metric="auc"),
            checkpoint,
            tiny_data,
            perfect,
            tracking_uri=server.uri,
        )
    assert versions(server, config.name) == []


def test_a_model_without_scores_is_refused(
    server: Server, config: RegisterConfig, checkpoint: Path, tiny_data: Path, perfect: Path
) -> None:
    with pytest.raises(ValueError, match=r"scores\.parquet: no column 'teacher'; it has .*student"):
        register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri, model="teacher")
    assert versions(server, config.name) == []


def test_a_metric_name_has_only_what_mlflow_allows() -> None:
    assert metric_name("student/ndcg@10") == "student/ndcg_at_10"


def test_a_version_is_downloaded_by_its_number_too(
    server: Server,
    config: RegisterConfig,
    checkpoint: Path,
    tiny_data: Path,
    perfect: Path,
    tmp_path: Path,
) -> None:
    register(config, checkpoint, tiny_data, perfect, tracking_uri=server.uri)
    assert load(download(server.uri, f"models:/{config.name}/1", tmp_path)).family == "bert"


@pytest.mark.parametrize("uri", ["relevance@champion", "models:/relevance", "models:/a/b@c"])
def test_an_address_of_another_kind_is_refused(server: Server, uri: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="want models:/NAME@ALIAS or models:/NAME/VERSION"):
        download(server.uri, uri, tmp_path)
