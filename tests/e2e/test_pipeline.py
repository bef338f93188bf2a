"""The whole pipeline, as a person starts it, on a generated shop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from relevance.data.market import MarketConfig, make_market
from relevance.data.pairs import judged_pairs
from relevance.data.tables import read_table, table_path
from relevance.inference import score_pairs
from relevance.models import load
from relevance.registry import CHALLENGER, EXPERIMENT, download

ROOT = Path(__file__).resolve().parents[2]
STEPS = {
    "validate-data",
    "extend-vocabulary",
    "pretrain",
    "finetune-dual",
    "finetune-teacher",
    "distill",
    "evaluate",
    "register",
}
# long enough to be killed in
LONG_PRETRAINING = ["pretrain.optim.steps=120", "pretrain.optim.save_every=5"]


@dataclass(frozen=True)
class Done:
    """A pipeline run that came to an end."""

    out: Path
    code: int
    stdout: str
    stderr: str
    log: str


@dataclass(frozen=True)
class Server:
    """A database and its client."""

    uri: str
    client: MlflowClient

    def runs(self, where: str = "") -> list[Run]:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], where))

    def parents(self, status: str) -> list[Run]:
        runs = self.runs(f"attributes.status = '{status}'")
        return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]

    def steps(self, parent: str) -> list[Run]:
        return self.runs(f"tags.mlflow.parentRunId = '{parent}'")


def command(data: Path, out: Path, server: Server, settings: list[str]) -> list[str]:
    start = [sys.executable, "-m", "querylift", "pipeline", "run", "--recipe", "smoke"]
    where = ["--data", data, "--out", out, "--tracking-uri", server.uri]
    return [*start, *map(str, where), *(part for key in settings for part in ("--set", key))]


def run(data: Path, out: Path, server: Server, settings: list[str] | None = None) -> Done:
    done = subprocess.run(
        [*command(data, out, server, settings or []), "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    log = max((out / "logs").iterdir()).read_text()
    return Done(out, done.returncode, done.stdout, done.stderr, log)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    return Server(uri, MlflowClient(tracking_uri=uri, registry_uri=uri))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("market") / "shop"
    size = MarketConfig(products=600, queries=150, searches=400, judgments=1_500, shoppers=100)
    make_market(size, data)
    return data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, server: Server, shop: Path) -> Done:
    """Killed in the middle of pretraining, then started again: the run that all tests look at."""
    out = tmp_path_factory.mktemp("runs") / "train"
    state = out / "state" / "pretrain"
    process = subprocess.Popen(
        command(shop, out, server, LONG_PRETRAINING),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        while not list(state.glob("pretrain-*.safetensors")):
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.05)
    finally:
        # the step is a process of its own
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "encoder").exists()
    return run(shop, out, server, LONG_PRETRAINING)


def test_a_killed_run_started_again_finishes(finished: Done) -> None:
    assert finished.code == 0, finished.stderr


def test_a_killed_run_goes_on_where_its_training_was(finished: Done) -> None:
    bars = [line for line in finished.log.splitlines() if "pretrain:" in line and "/120" in line]
    first = int(bars[0].split("| ")[-1].split("/120")[0])
    assert first > 0
    assert first % 5 == 0
    assert "120/120" in bars[-1]


def test_a_finished_run_leaves_results_by_name(finished: Done) -> None:
    assert {path.name for path in finished.out.iterdir()} == {
        "dual",
        "encoder",
        "evaluation",
        "logs",
        "steps",
        "student",
        "teacher",
        "validation",
        "vocabulary",
    }
    assert load(finished.out / "student").family == "bert"
    assert load(finished.out / "dual").family == "sbert"
    assert (finished.out / "validation" / "index.html").is_file()


def test_five_models_are_judged_on_the_same_pairs(finished: Done) -> None:
    evaluation = json.loads((finished.out / "evaluation" / "evaluation.json").read_text())
    assert set(evaluation["models"]) == {"bm25", "token-overlap", "dual", "teacher", "student"}
    printed = json.loads(finished.stdout)
    area = evaluation["models"]["student"]["roc_auc"]["value"]
    assert printed["student/roc_auc"] == pytest.approx(area)


def test_a_person_sees_steps_and_no_log(finished: Done) -> None:
    shown = [line for line in finished.stderr.splitlines() if line.startswith("[")]
    assert shown[0] == "[1] validate-data"
    assert len(shown) == len(STEPS) + 1
    assert "executor_input" not in finished.stderr


def test_every_step_is_logged_under_one_finished_run(finished: Done, server: Server) -> None:
    (parent,) = server.parents("FINISHED")
    children = server.steps(parent.info.run_id)
    assert sorted(child.info.run_name for child in children) == sorted(STEPS)
    assert {child.info.status for child in children} == {"FINISHED"}
    logged = {child.info.run_name: child.data for child in children}
    assert logged["pretrain"].params["optim.steps"] == "120"
    printed = json.loads(finished.stdout)
    assert logged["evaluate"].metrics["student/roc_auc"] == printed["student/roc_auc"]


def test_the_student_is_registered_as_challenger(
    finished: Done, server: Server, shop: Path, tmp_path: Path
) -> None:
    version = server.client.get_model_version_by_alias("relevance", CHALLENGER)
    assert version.tags["recipe"] == "smoke"
    assert version.tags["is_generated"] == "true"
    (parent,) = server.parents("FINISHED")
    assert version.run_id == parent.info.run_id
    fetched = load(download(server.uri, f"models:/relevance@{CHALLENGER}", tmp_path))
    pairs = judged_pairs(shop, "test").head(50)
    texts = list(pairs["query"]), list(pairs["title"])
    np.testing.assert_array_equal(
        score_pairs(fetched, *texts), score_pairs(load(finished.out / "student"), *texts)
    )


def test_a_finished_run_is_not_overwritten(finished: Done, server: Server, shop: Path) -> None:
    done = run(shop, finished.out, server)
    assert done.code == 2
    assert "holds a finished run" in done.stderr


def test_a_broken_dataset_stops_the_run_and_names_the_row(
    finished: Done, server: Server, shop: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(shop, broken)
    judgments = read_table(shop, "judgments")
    grades = judgments["grade"].to_pylist()
    grades[41] = 7
    column = judgments.schema.get_field_index("grade")
    judgments = judgments.set_column(
        column, judgments.schema.field(column), pa.array(grades, pa.int8())
    )
    pq.write_table(judgments, table_path(broken, "judgments"))

    done = run(broken, tmp_path / "out", server)

    assert done.code == 1
    assert done.stdout == ""
    message = done.stderr.splitlines()[-1]
    assert message.startswith("querylift: ")
    for part in ("judgments.parquet", "grade is 0 to 3", "(row 42)"):
        assert part in message
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "validation" / "index.html").is_file()
    assert not (tmp_path / "out" / "student").exists()
    (failed,) = server.parents("FAILED")
    assert server.steps(failed.info.run_id) == []
    assert len(server.client.search_model_versions("name = 'relevance'")) == 1
