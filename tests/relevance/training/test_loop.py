"""What the loop refuses, keeps and counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from relevance.configs import OptimConfig
from relevance.models.base import Batch
from relevance.training.loop import Stage, train

OPTIM = OptimConfig(steps=8, batch_size=4, lr=0.1, save_every=100, precision="fp32")


def collate(examples: list[float]) -> Batch:
    return {"x": torch.tensor(examples)[:, None]}


def stage(model: nn.Module, spoil: float, at: int) -> Stage[float]:
    """Learns to answer 0; in step ``at`` the loss is multiplied by ``spoil``."""

    def loss(batch: Batch, progress: float) -> torch.Tensor:
        factor = spoil if round(progress * OPTIM.steps) == at else 1.0
        answer: torch.Tensor = model(batch["x"])
        return answer.square().mean() * factor

    return Stage("toy", model, [1.0, 2.0, 3.0, 4.0, 5.0], len_of, collate, loss)  # type: ignore[arg-type]


def len_of(_: float) -> int:
    return 1


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(
    tmp_path: Path, spoil: float
) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=rf"toy: loss is {spoil}, .* at step 5, on examples \d, "):
        train(stage(model, spoil, at=5), OPTIM, seed=0, state=tmp_path, key="k")
    (kept,) = tmp_path.glob("*.safetensors")
    with safe_open(kept, "pt") as stored:
        assert json.loads(stored.metadata()["progress"])["step"] == 5
        names = list(stored.keys())
        assert all(torch.isfinite(stored.get_tensor(name)).all() for name in names)
    # the cause mended, the run goes on from there
    numbers = train(stage(nn.Linear(1, 1), 1.0, at=5), OPTIM, seed=0, state=tmp_path, key="k")
    assert numbers["toy/steps"] == 8


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)

    def loss(batch: Batch, progress: float) -> torch.Tensor:
        # sqrt has a finite value and an infinite slope at 0
        return (model(batch["x"]) * 0).abs().sqrt().mean() + model(batch["x"]).square().mean()

    broken = Stage("toy", model, [1.0, 2.0, 3.0, 4.0], len_of, collate, loss)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gradient norm nan at step 0"):
        train(broken, OPTIM, seed=0, state=tmp_path, key="k")
    assert torch.isfinite(model.weight).all()


def test_progress_is_the_share_of_steps_done(tmp_path: Path) -> None:
    model, seen = nn.Linear(1, 1), []

    def loss(batch: Batch, progress: float) -> torch.Tensor:
        seen.append(progress)
        answer: torch.Tensor = model(batch["x"])
        return answer.square().mean()

    toy = Stage("toy", model, [1.0, 2.0, 3.0, 4.0], len_of, collate, loss)  # type: ignore[arg-type]
    train(toy, OPTIM, seed=0, state=tmp_path, key="k")
    assert seen == [step / 8 for step in range(8)]


def test_a_stage_counts_its_seconds_its_speed_and_its_memory(tmp_path: Path) -> None:
    numbers = train(stage(nn.Linear(1, 1), 1.0, at=0), OPTIM, seed=0, state=tmp_path, key="k")
    assert numbers["toy/seconds"] > 0
    assert numbers["toy/examples_per_second"] == pytest.approx(8 * 4 / numbers["toy/seconds"])
    assert 0.01 < numbers["toy/peak_memory_gib"] < 64


def test_stages_of_different_precision_run_in_one_process(tmp_path: Path) -> None:
    model, seen = nn.Linear(1, 1), []

    def loss(batch: Batch, progress: float) -> torch.Tensor:
        answer: torch.Tensor = model(batch["x"])
        seen.append(answer.dtype)
        return answer.square().mean()

    for number, precision in enumerate(("fp32", "bf16", "fp32")):
        toy = Stage(f"toy-{number}", model, [1.0, 2.0, 3.0, 4.0], len_of, collate, loss)  # type: ignore[arg-type]
        config = replace(OPTIM, steps=1, precision=precision)  # type: ignore[arg-type]
        train(toy, config, seed=0, state=tmp_path, key="k")
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
    assert model.weight.dtype == torch.float32
