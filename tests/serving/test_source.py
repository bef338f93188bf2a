"""Checkpoints from paths and from a real sqlite MLflow registry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from relevance.checkpoints import check_checkpoint
from relevance.manifest import write_manifest
from relevance.registry import Registered, alias_version, resolve
from serving.metrics import ALIAS_CHANGED, REGISTRY
from serving.source import Source, open_source, watch_alias
from tests.checkpoints import write_checkpoint

NAME = "shop"


@pytest.fixture(scope="module")
def checkpoint(
    vocabulary: Path, clicked_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("source")
    write_checkpoint("bert", root / "tiny", vocabulary, clicked_data)
    return root / "tiny"


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # MLflow takes seconds to make its tables
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def add_version(uri: str, directory: Path) -> str:
    client = MlflowClient(uri, uri)
    if not client.search_registered_models(f"name='{NAME}'"):
        client.create_registered_model(NAME)
    return str(client.create_model_version(NAME, directory.as_uri()).version)


def point(uri: str, version: str) -> None:
    MlflowClient(uri, uri).set_registered_model_alias(NAME, "champion", version)


def rewrite_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)


def test_a_path_is_a_source_that_is_named_after_its_directory(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = open_source(str(checkpoint), tmp_path)
    assert source == Source(str(checkpoint), "tiny", checkpoint)


def test_an_alias_and_a_number_lead_to_the_same_files(
    checkpoint: Path, uri: str, tmp_path: Path
) -> None:
    point(uri, add_version(uri, checkpoint))
    by_alias = open_source("models:/shop@champion", tmp_path / "a", tracking_uri=uri)
    by_number = open_source("models:/shop/1", tmp_path / "b", tracking_uri=uri)
    assert (by_alias.name, by_alias.version, by_alias.alias) == (NAME, "1", "champion")
    assert (by_number.name, by_number.version, by_number.alias) == (NAME, "1", "")
    for source in (by_alias, by_number):
        assert source.checkpoint.is_relative_to(tmp_path)
        assert (source.checkpoint / "manifest.json").read_bytes() == (
            checkpoint / "manifest.json"
        ).read_bytes()


@pytest.mark.parametrize(
    "wrong", ["models:/shop", "models:/shop/latest", "models:/shop@", "models:/a/b@c", "models:/"]
)
def test_another_form_of_name_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="want models:/NAME@ALIAS or models:/NAME/VERSION"):
        open_source(wrong, tmp_path, tracking_uri="sqlite:///none.db")


def test_an_unknown_alias_model_and_database_are_named(
    checkpoint: Path, uri: str, tmp_path: Path
) -> None:
    add_version(uri, checkpoint)
    for wrong in ("models:/shop@champion", "models:/other@champion"):
        with pytest.raises(FileNotFoundError, match=f"^{wrong}: MLflow at .* has no model"):
            resolve(wrong, tracking_uri=uri)
    with pytest.raises(OSError, match=r"MLflow at .*version=7"):
        open_source("models:/shop/7", tmp_path / "x", tracking_uri=uri)
    missing = tmp_path / "none.db"
    with pytest.raises(FileNotFoundError, match=f"{missing} is missing"):
        resolve("models:/shop@champion", tracking_uri=f"sqlite:///{missing}")
    assert not missing.exists()
    assert resolve("models:/shop/3") == Registered("shop", "3")


def test_a_changed_byte_in_the_registry_is_refused(
    checkpoint: Path, uri: str, tmp_path: Path
) -> None:
    stored = shutil.copytree(checkpoint, tmp_path / "stored")
    content = bytearray((stored / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (stored / "model.safetensors").write_bytes(content)
    add_version(uri, stored)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .* the file was changed"):
        open_source("models:/shop/1", tmp_path / "x", tracking_uri=uri)


@pytest.mark.parametrize("name", ["model.pkl", "pytorch_model.bin", "1_Pooling/code.py", "x.JSON"])
def test_a_file_that_could_hold_code_is_refused_though_the_manifest_lists_it(
    checkpoint: Path, uri: str, tmp_path: Path, name: str
) -> None:
    stored = shutil.copytree(checkpoint, tmp_path / "stored")
    (stored / name).parent.mkdir(exist_ok=True)
    (stored / name).write_bytes(b"\x80\x04.")
    rewrite_manifest(stored)
    add_version(uri, stored)
    for model in (str(stored), "models:/shop/1"):
        with pytest.raises(ValueError, match=f"{name}: refused, it could hold code"):
            open_source(model, tmp_path / "x", tracking_uri=uri)


def test_remote_code_and_models_of_others_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    remote = shutil.copytree(checkpoint, tmp_path / "remote")
    config = json.loads((remote / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "a--b.C"}}))
    rewrite_manifest(remote)
    with pytest.raises(ValueError, match=r"config\.json: refused, auto_map names code"):
        check_checkpoint(remote)
    del config["querylift"]
    (remote / "config.json").write_text(json.dumps(config))
    rewrite_manifest(remote)
    with pytest.raises(ValueError, match="names no model family of ours"):
        check_checkpoint(remote)
    (remote / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint of ours"):
        check_checkpoint(remote)


def changed() -> float | None:
    return REGISTRY.get_sample_value("querylift_alias_changed")


@contextlib.asynccontextmanager
async def watching(source: Source, uri: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
    """Watch while the block runs; the function waits for a value of the metric."""
    task = asyncio.create_task(watch_alias(source, every_s=0.02, tracking_uri=uri))

    async def until(value: float) -> None:
        async with asyncio.timeout(30):
            while changed() != value:
                assert not task.done()
                await asyncio.sleep(0.02)

    yield until
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_moved_alias_is_told_and_the_files_stay(
    checkpoint: Path, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "querylift.source")
    point(uri, add_version(uri, checkpoint))
    source = open_source("models:/shop@champion", tmp_path / "x", tracking_uri=uri)
    ALIAS_CHANGED.set(0)

    async def scenario() -> None:
        async with watching(source, uri) as until:
            await until(0)
            second = add_version(uri, checkpoint)
            point(uri, second)
            await until(1)
            point(uri, "1")
            await until(0)
            MlflowClient(uri, uri).delete_registered_model_alias(NAME, "champion")
            await until(1)

    asyncio.run(scenario())
    assert alias_version(NAME, "champion", tracking_uri=uri) is None
    assert source.version == "1"
    check_checkpoint(source.checkpoint)
    assert [vars(record)["facts"]["found"] for record in caplog.records] == ["2", "1", "none"]


def test_a_registry_that_is_down_changes_nothing_and_is_asked_again(
    checkpoint: Path, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "querylift.source")
    point(uri, add_version(uri, checkpoint))
    source = replace(
        open_source("models:/shop@champion", tmp_path / "x", tracking_uri=uri), version="0"
    )
    database = tmp_path / "mlflow.db"
    database.rename(tmp_path / "away")
    ALIAS_CHANGED.set(0)

    async def scenario() -> None:
        async with watching(source, uri) as until:
            await asyncio.sleep(0.5)
            assert changed() == 0
            (tmp_path / "away").rename(database)
            await until(1)

    asyncio.run(scenario())
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("the registry does not answer: MLflow at sqlite:///")
    assert len(messages) == 2  # told once, however often it was asked
