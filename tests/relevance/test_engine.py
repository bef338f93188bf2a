"""The engine in int8: near fp32, and refused where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from relevance import quantization
from relevance.engine import Rows, cpu_engine, gpu_engine
from relevance.models import load
from relevance.models.base import CrossEncoder
from tests.checkpoints import KINDS, write_checkpoint

CROSS = KINDS[:-1]


@pytest.fixture(scope="module")
def models(
    clicked_data: Path, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], CrossEncoder]:
    home = tmp_path_factory.mktemp("checkpoints")

    def opened(kind: str) -> CrossEncoder:
        if not (home / kind).exists():
            write_checkpoint(kind, home / kind, vocabulary, clicked_data)
        model = load(home / kind)
        assert isinstance(model, CrossEncoder)
        if kind == "roberta":  # its scores hardly differ
            for weights in model.network.parameters():
                if weights.ndim == 2:
                    torch.nn.init.normal_(weights, std=0.2)
        return model

    return opened


@pytest.fixture
def low_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks are rougher than a trained one."""
    monkeypatch.setattr(quantization, "_LEAST_CORRELATION", 0.99)


def random_rows(model: CrossEncoder, count: int, width: int) -> Rows:
    rng = np.random.default_rng(1)
    shape = (count, width)
    found = {
        "input_ids": rng.integers(5, model.network.config.vocab_size, shape),
        "attention_mask": np.ones(shape),
        "token_type_ids": np.arange(width) >= rng.integers(2, width - 2, (count, 1)),
        "position_ids": np.broadcast_to(np.arange(width), shape),
        "term_ids": rng.integers(0, 7, shape),
    }
    return {name: found[name].astype(np.int32) for name in model.inputs}


@pytest.mark.usefixtures("low_bar")
@pytest.mark.parametrize("kind", CROSS)
def test_int8_ranks_as_fp32_does(models: Callable[[str], CrossEncoder], kind: str) -> None:
    model = models(kind)
    rows = random_rows(model, 200, 13)
    exact, rounded = (cpu_engine(model, name, 1)([rows])[0] for name in ("fp32", "int8"))
    assert np.isfinite(rounded).all()
    assert not np.array_equal(exact, rounded)
    ranks = [scores.argsort().argsort() for scores in (exact, rounded)]
    assert np.corrcoef(*ranks)[0, 1] > 0.99


@pytest.mark.usefixtures("low_bar")
def test_int8_scores_a_row_the_same_alone_and_padded(
    models: Callable[[str], CrossEncoder],
) -> None:
    model = models("bert")
    engine = cpu_engine(model, "int8", 1)
    rows = random_rows(model, 8, 13)
    (together,) = engine([rows])
    wider = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in rows.items()}
    np.testing.assert_allclose(engine([wider])[0], together, atol=2e-5)
    for place in range(8):
        (alone,) = engine([{name: values[place : place + 1] for name, values in rows.items()}])
        np.testing.assert_allclose(alone, together[place], atol=2e-5)


def test_batches_at_once_are_scored_as_one_by_one(
    models: Callable[[str], CrossEncoder],
) -> None:
    model = models("bert")
    batches = [random_rows(model, 1 + 7 * n % 40, 10 + n % 17) for n in range(60)]
    alone, together = cpu_engine(model, "fp32", 1), cpu_engine(model, "fp32", 2)
    # made while others run, and held by nobody else
    found = together({name: rows.copy() for name, rows in batch.items()} for batch in batches)
    assert len(found) == len(batches)
    for batch, scores in zip(batches, found, strict=True):
        np.testing.assert_allclose(scores, alone([batch])[0], atol=1e-6)
    assert together([]) == []


def test_a_checkpoint_that_int8_would_change_is_refused(
    models: Callable[[str], CrossEncoder],
) -> None:
    model = models("bert")
    with torch.no_grad():
        # one channel a thousand times the others takes up the whole range
        model.network.bert.embeddings.LayerNorm.weight[0] *= 1_000
    with pytest.raises(ValueError, match=r"'int8': rank correlation .* this checkpoint needs fp32"):
        cpu_engine(model, "int8", 1)


def test_no_gpu_has_int8(models: Callable[[str], CrossEncoder]) -> None:
    with pytest.raises(ValueError, match="precision 'int8': GPUs have fp32 and bf16 here"):
        gpu_engine(models("bert"), "int8")
