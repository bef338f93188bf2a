"""The real pipeline under kfp's local runner, on a small generated shop: every step, for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from pipelines.local import RESULTS, run_local
from relevance.data.market import MarketConfig, make_market
from relevance.data.tables import data_hash, read_table, table_path
from relevance.errors import Finding
from relevance.files import sha256

ROOT = Path(__file__).resolve().parents[2]
STEPS = {
    "validate-data", "extend-vocabulary", "learn-terms", "pretrain", "finetune-dual",
    "finetune-teacher", "distill", "evaluate", "register",
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data") / "market"
    config = MarketConfig(products=800, queries=120, searches=600, judgments=2_000, shoppers=100)
    make_market(config, data)
    return data


@pytest.fixture(scope="module")
def finished(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    # in a directory whose name kfp's local runner would rewrite
    out = tmp_path_factory.mktemp("python3") / "my run"
    return out, run_local([shop], "smoke", [], out=out)


def tree(out: Path) -> dict[str, tuple[str, str]]:
    """Status and parent of every MLflow run, by its name."""
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    names = {run.info.run_id: run.info.run_name for run in runs}
    return {
        run.info.run_name: (
            run.info.status,
            names.get(run.data.tags.get("mlflow.parentRunId"), ""),
        )
        for run in runs
    }


def test_a_run_leaves_every_result_by_name(finished: tuple[Path, dict[str, float]]) -> None:
    out, numbers = finished
    for name in RESULTS:
        assert (out / name).is_dir(), name
    assert (out / "validation" / "index.html").stat().st_size > 0
    assert (out / "evaluation" / "index.html").stat().st_size > 0
    for model in ("bm25", "token-overlap", "dual", "teacher", "student"):
        assert 0 <= numbers[f"{model}/roc_auc"] <= 1
    assert numbers["register/version"] == 1
    assert json.loads((out / "run.json").read_text())["metrics"] == numbers
    assert not (out / "state").exists()


def test_mlflow_has_one_tree_with_a_run_for_every_step(
    finished: tuple[Path, dict[str, float]],
) -> None:
    out, _ = finished
    runs = tree(out)
    assert runs.pop("my run") == ("FINISHED", "")
    assert runs == dict.fromkeys(STEPS, ("FINISHED", "my run"))


def test_the_registered_version_names_its_origin(
    finished: tuple[Path, dict[str, float]], shop: Path
) -> None:
    out, _ = finished
    uri = f"sqlite:///{out / 'mlflow.db'}"
    version = MlflowClient(uri, uri).get_model_version_by_alias("relevance", "challenger")
    assert version.tags["data_hash"] == data_hash(shop)
    assert version.tags["is_generated"] == "true"
    assert version.tags["recipe"] == "smoke"
    assert version.tags["manifest_sha256"] == sha256(out / "student" / "manifest.json")


def test_a_finished_run_is_not_overwritten(
    finished: tuple[Path, dict[str, float]], shop: Path
) -> None:
    with pytest.raises(FileExistsError, match="my run: holds a finished run"):
        run_local([shop], "smoke", [], out=finished[0])


def test_a_run_killed_while_training_and_started_again_ends_with_the_same_weights(
    finished: tuple[Path, dict[str, float]], shop: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from pipelines.local import run_local; "
        "run_local([Path(sys.argv[1])], 'smoke', [], out=Path(sys.argv[2]))"
    )
    # a group of its own, so that runner and step die together, as with a machine
    with subprocess.Popen(
        [sys.executable, "-c", code, str(shop), str(out)],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as running:
        while not list((out / "state").glob("finetune-dual/*.safetensors")):
            assert running.poll() is None, "the run ended before it could be killed"
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
    assert not (out / "run.json").exists()
    run_local([shop], "smoke", [], out=out)
    for name in ("dual", "teacher", "student"):
        weights = f"{name}/model.safetensors"
        assert sha256(out / weights) == sha256(finished[0] / weights), name
    # started again it went on with its MLflow run
    assert tree(out) == {
        "killed": ("FINISHED", ""),
        **dict.fromkeys(STEPS, ("FINISHED", "killed")),
    }


def test_bad_data_stops_the_pipeline_with_its_rows_named(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in shop.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    products = read_table(bad, "products")
    twice = pa.concat_tables([products, products.slice(3, 1)])
    pq.write_table(twice, table_path(bad, "products"))
    item = products["item_id"][3].as_py()
    out = tmp_path / "out"
    with pytest.raises(Finding, match=f"item_id.* unique.*{item}"):
        run_local([bad], "smoke", [], out=out)
    shown = capsys.readouterr().err
    assert "extend-vocabulary" not in shown
    assert "finish-run" in shown
    assert (out / "validation" / "index.html").exists()
    assert tree(out) == {"out": ("FAILED", ""), "validate-data": ("FAILED", "out")}


def test_a_broken_table_is_wrong_input(shop: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in shop.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    products = read_table(bad, "products").drop_columns(["title"])
    pq.write_table(products, table_path(bad, "products"))
    with pytest.raises(ValueError, match=r"products\.parquet: no column 'title' \(string\)"):
        run_local([bad], "smoke", [], out=tmp_path / "out")
