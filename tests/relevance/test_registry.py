"""The MLflow tree and the gate, on a real sqlite MLflow and real checkpoints of random weights."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow import MlflowClient
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig as BertShape
from transformers import PreTrainedTokenizerFast

from relevance.configs import EvaluationConfig, RegisterConfig
from relevance.data.pairs import judged_pairs
from relevance.data.tables import TABLES, DatasetCard, data_hash, write_card, write_table
from relevance.errors import Finding
from relevance.evaluation import evaluate
from relevance.files import sha256
from relevance.inference import score_pairs
from relevance.manifest import MANIFEST
from relevance.models import FAMILIES, load, save
from relevance.registry import (
    CHALLENGER,
    CHAMPION,
    EXPERIMENT,
    Registered,
    download,
    finish_run,
    register,
    registered_versions,
    start_run,
    step_run,
)

COLOURS = "red blue green black".split()
KINDS = "lamp shirt cable kettle".split()
SIZES = "12v 24v small large".split()
CONFIG = RegisterConfig(name="shop", metric="roc_auc")


def write_checkpoint(path: Path, seed: int) -> Path:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *COLOURS, *KINDS, *SIZES]
    built = Tokenizer(WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    built.pre_tokenizer = Whitespace()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, **dict(zip(names, special, strict=True))
    )
    torch.manual_seed(seed)
    shape = BertShape(
        vocab_size=len(words),
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    save(FAMILIES["bert"]().build(shape, tokenizer), path)
    return path


def write_dataset(data: Path, judge: Path) -> Path:
    """Every colour and kind asked, and ``judge``'s scores decide what is relevant."""
    data.mkdir()
    titles = [" ".join(words) for words in itertools.product(COLOURS, KINDS, SIZES)]
    asked = [" ".join(words) for words in itertools.product(COLOURS, KINDS)]
    rng = np.random.default_rng(0)
    pairs = [(q, i) for q in range(len(asked)) for i in rng.choice(len(titles), 8, replace=False)]
    scores = score_pairs(load(judge), [asked[q] for q, _ in pairs], [titles[i] for _, i in pairs])
    grades = np.where(scores > np.median(scores), 3, 0)
    rows = {
        "queries": [
            (f"q{n}", query, "train" if n % 4 == 0 else "valid", "tiny", 1)
            for n, query in enumerate(asked)
        ],
        "products": [(f"p{n}", title, None, "c", "b", []) for n, title in enumerate(titles)],
        "judgments": [
            (f"q{q}", f"p{i}", int(grade), None)
            for (q, i), grade in zip(pairs, grades, strict=True)
        ],
    }
    for table, values in rows.items():
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*values, strict=True), TABLES[table], strict=True)
        ]
        write_table(pa.table(columns, schema=TABLES[table]), data, table)
    write_card(DatasetCard("tiny", is_generated=True, licence="none", settings={}), data)
    return data


class Shop:
    """Two checkpoints, of which ``good`` agrees with the judgments, and their evaluation."""

    def __init__(self, root: Path) -> None:
        self.good = write_checkpoint(root / "good", seed=1)
        self.poor = write_checkpoint(root / "poor", seed=2)
        self.data = write_dataset(root / "data", judge=self.good)
        self.evaluation = root / "evaluation"
        checkpoints = {"good": self.good, "poor": self.poor}
        evaluate(EvaluationConfig(resamples=200), self.data, checkpoints, self.evaluation)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # MLflow takes seconds to make its tables
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI", "KFP_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def promote(uri: str) -> Callable[[int], None]:
    def to_champion(version: int) -> None:
        MlflowClient(uri, uri).set_registered_model_alias(CONFIG.name, CHAMPION, str(version))

    return to_champion


def versions(uri: str) -> list[int]:
    found = MlflowClient(uri, uri).search_model_versions(f"name='{CONFIG.name}'")
    return sorted(int(version.version) for version in found)


def runs(uri: str) -> dict[str, tuple[str, str | None]]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return {
        run.info.run_name: (run.info.status, run.data.tags.get("mlflow.parentRunId"))
        for run in client.search_runs([experiment.experiment_id])
    }


def test_without_a_champion_the_checkpoint_is_registered_with_its_lineage(
    shop: Shop, uri: str, tmp_path: Path
) -> None:
    tags = {"recipe": "smoke", "image": "repo/train@sha256:0"}
    numbers = register(CONFIG, shop.poor, shop.data, shop.evaluation, tracking_uri=uri, tags=tags)
    assert numbers["version"] == 1
    assert "difference" not in numbers
    version = MlflowClient(uri, uri).get_model_version_by_alias(CONFIG.name, CHALLENGER)
    assert version.tags["data_hash"] == data_hash(shop.data)
    assert version.tags["is_generated"] == "true"
    assert version.tags["dataset"] == "tiny"
    assert version.tags["beaten_champion"] == "none: shop had no champion"
    assert version.tags["run_id"] == version.run_id
    assert version.tags["code_version"]
    assert tags.items() <= version.tags.items()
    fetched = download(CONFIG.name, CHALLENGER, tmp_path / "fetched", tracking_uri=uri)
    names = {path.name for path in fetched.rglob("*") if path.is_file()}
    assert names == {path.name for path in shop.poor.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".bin", ".pt", ".pth"))]
    pairs = judged_pairs(shop.data)
    texts = list(pairs["query"]), list(pairs["title"])
    given, wanted = score_pairs(load(fetched), *texts), score_pairs(load(shop.poor), *texts)
    assert np.array_equal(given, wanted)


def test_a_version_is_found_by_what_its_scorer_answers(shop: Shop, uri: str) -> None:
    for _ in range(2):
        register(CONFIG, shop.poor, shop.data, shop.evaluation, tracking_uri=uri)
    digits = sha256(shop.poor / MANIFEST)[:16]
    asked = [digits, "0" * 16, "unknown", "' OR ''='"]
    assert registered_versions(asked, tracking_uri=uri) == {digits: Registered(CONFIG.name, "1")}
    assert registered_versions([], tracking_uri=uri) == {}


def test_a_better_checkpoint_passes_the_gate_and_leaves_the_champion_alone(
    shop: Shop, uri: str, promote: Callable[[int], None]
) -> None:
    register(CONFIG, shop.poor, shop.data, shop.evaluation, tracking_uri=uri)
    promote(1)
    numbers = register(CONFIG, shop.good, shop.data, shop.evaluation, tracking_uri=uri)
    assert numbers["version"] == 2
    assert 0 < numbers["difference_low"] <= numbers["difference"] <= numbers["difference_high"]
    client = MlflowClient(uri, uri)
    assert str(client.get_model_version_by_alias(CONFIG.name, CHALLENGER).version) == "2"
    assert str(client.get_model_version_by_alias(CONFIG.name, CHAMPION).version) == "1"
    tags = client.get_model_version(CONFIG.name, "2").tags
    assert tags["beaten_champion"] == "v1"


def test_a_worse_checkpoint_is_a_finding_that_says_by_how_much_and_is_not_registered(
    shop: Shop, uri: str, promote: Callable[[int], None]
) -> None:
    register(CONFIG, shop.good, shop.data, shop.evaluation, tracking_uri=uri)
    promote(1)
    message = (
        r"^gate: poor's roc_auc 0\.\d{4} does not beat champion v1's 1\.0000: "
        r"difference -0\.\d{4} \[-0\.\d{4}, -0\.\d{4}\], want an interval above 0; "
        r"nothing was registered$"
    )
    with pytest.raises(Finding, match=message):
        register(CONFIG, shop.poor, shop.data, shop.evaluation, tracking_uri=uri)
    assert versions(uri) == [1]
    client = MlflowClient(uri)
    failed = client.search_runs(
        [client.get_experiment_by_name(EXPERIMENT).experiment_id], "attributes.status = 'FAILED'"
    )
    assert len(failed) == 1
    assert failed[0].data.metrics["difference"] < 0
    assert failed[0].data.tags["querylift.error"].startswith("Finding: gate:")
    assert client.list_artifacts(failed[0].info.run_id) == []


def test_the_champion_does_not_beat_itself(
    shop: Shop, uri: str, promote: Callable[[int], None]
) -> None:
    register(CONFIG, shop.good, shop.data, shop.evaluation, tracking_uri=uri)
    promote(1)
    with pytest.raises(Finding, match=r"difference \+0\.0000 \[\+0\.0000, \+0\.0000\]"):
        register(CONFIG, shop.good, shop.data, shop.evaluation, tracking_uri=uri)


def test_where_lower_is_better_the_interval_must_lie_below_zero(
    shop: Shop, uri: str, promote: Callable[[int], None]
) -> None:
    config = RegisterConfig(name=CONFIG.name, metric="ece")
    register(config, shop.good, shop.data, shop.evaluation, tracking_uri=uri)
    promote(1)
    with pytest.raises(Finding, match="want an interval below 0"):
        register(config, shop.poor, shop.data, shop.evaluation, tracking_uri=uri)


def test_a_changed_byte_in_the_checkpoint_is_refused(shop: Shop, uri: str, tmp_path: Path) -> None:
    broken = shutil.copytree(shop.good, tmp_path / "good")
    flip(broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .* the file was changed"):
        register(CONFIG, broken, shop.data, shop.evaluation, tracking_uri=uri)
    assert versions(uri) == []


def test_a_changed_byte_in_the_stored_champion_is_refused(
    shop: Shop, uri: str, promote: Callable[[int], None], tmp_path: Path
) -> None:
    register(CONFIG, shop.poor, shop.data, shop.evaluation, tracking_uri=uri)
    promote(1)
    (stored,) = (tmp_path / "mlflow-artifacts").rglob("model.safetensors")
    flip(stored)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .* the file was changed"):
        register(CONFIG, shop.good, shop.data, shop.evaluation, tracking_uri=uri)
    assert versions(uri) == [1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_evaluation_of_another_checkpoint_is_refused(shop: Shop, uri: str) -> None:
    with pytest.raises(ValueError, match=r"column 'good' is not of .*poor: query '.*' has score"):
        register(CONFIG, shop.poor, shop.data, shop.evaluation, tracking_uri=uri, model="good")


def test_an_evaluation_of_other_data_is_refused(shop: Shop, uri: str, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", judge=shop.poor)
    with pytest.raises(ValueError, match=r"made of data .*…, but .*other is .*…; evaluate on"):
        register(CONFIG, shop.good, other, shop.evaluation, tracking_uri=uri)


def test_an_absent_column_and_an_unknown_metric_are_refused(shop: Shop, uri: str) -> None:
    with pytest.raises(ValueError, match="no column 'x' for the checkpoint; there are bm25, "):
        register(CONFIG, shop.good, shop.data, shop.evaluation, tracking_uri=uri, model="x")
    with pytest.raises(ValueError, match="metric 'auc': unknown; there are roc_auc"):
        register(RegisterConfig(metric="auc"), shop.good, shop.data, shop.evaluation)


def test_steps_of_one_pipeline_run_share_a_parent(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "job-1")
    for step in ("first", "second"):
        with step_run(uri, step, {"first.lr": 0.1}) as run:
            run.log({"student/ndcg@10": 0.5})
    place = finish_run(uri, is_success=True)
    tree = runs(uri)
    assert set(tree) == {"pipeline", "first", "second"}
    assert tree["pipeline"] == ("FINISHED", None)
    parent = tree["first"][1]
    assert parent is not None
    assert tree["first"] == tree["second"] == ("FINISHED", parent)
    assert place == f"run {parent}: mlflow ui --backend-store-uri {uri}"
    monkeypatch.setenv("KFP_RUN_ID", "job-2")
    with step_run(uri, "other"):
        pass
    assert runs(uri)["other"][1] != parent


def test_an_injected_pipeline_run_becomes_the_parent(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    injected = start_run(uri, name="mine", key="k", tags={"recipe": "smoke"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with step_run("", "first"):
        pass
    assert runs(uri) == {"mine": ("RUNNING", None), "first": ("FINISHED", injected)}
    finish_run("", is_success=False)
    assert runs(uri)["mine"] == ("FAILED", None)
    # started again
    assert start_run(uri, name="mine", key="k", tags={}) == injected
    assert runs(uri)["mine"] == ("RUNNING", None)


def test_a_run_that_the_plugin_made_for_the_step_is_adopted_and_left_open(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    experiment = client.create_experiment("theirs")
    parent = client.create_run(experiment).info.run_id
    own = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", own)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    with step_run(uri, "pretrain", {"pretrain.mask": 0.15}) as run:
        run.log({"loss": 1.0})
    finish_run(uri, is_success=True)
    assert len(client.search_runs([experiment])) == 2
    assert client.get_run(own).data.metrics == {"loss": 1.0}
    assert client.get_run(own).data.params == {"pretrain.mask": "0.15"}
    assert client.get_run(own).info.status == "RUNNING"
    assert client.get_run(parent).info.status == "RUNNING"


def test_a_step_tried_again_goes_on_with_its_run(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "job-1")
    with pytest.raises(KeyError), step_run(uri, "first", {"a.b": 1}):
        raise KeyError("x")
    assert runs(uri)["first"][0] == "FAILED"
    with step_run(uri, "first", {"a.b": 1}):
        pass
    tree = runs(uri)
    assert set(tree) == {"pipeline", "first"}
    assert tree["first"][0] == "FINISHED"


def test_no_server_and_a_server_that_is_away_are_named(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="no MLflow: give a tracking URI"), step_run("", "first"):
        pass
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = "http://127.0.0.1:9"
    with pytest.raises(OSError, match=f"MLflow at {away}: "), step_run(away, "first"):
        pass
