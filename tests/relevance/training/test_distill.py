"""The identities of distillation losses, and a student that learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from relevance.configs import (
    DistillConfig,
    FinetuneConfig,
    OptimConfig,
    ShapeConfig,
    WeakPairsConfig,
)
from relevance.models import load
from relevance.training.distill import distill, logit_loss, margin_loss, relation_loss
from relevance.training.finetune import finetune

OPTIM = OptimConfig(steps=4, batch_size=8, lr=1e-3, save_every=2, precision="fp32")
WEAK = WeakPairsConfig(pairs=40)
CONFIG = DistillConfig(
    shape=ShapeConfig(layers=1, hidden=16, heads=2),
    weak=WEAK,
    relation_heads=4,
    relations=OPTIM,
    logits=OPTIM,
    gold=OPTIM,
)


def states(width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return torch.randn(2, 5, width), mask


def test_a_copy_of_the_teacher_has_no_loss_and_no_gradient() -> None:
    teacher, mask = states()
    student = teacher.clone().requires_grad_()
    relations = relation_loss(teacher, student, mask, heads=4)
    relations.backward()
    assert relations.item() == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max().item() == pytest.approx(0, abs=1e-6)

    scores = torch.tensor([2.0, -1.0, 0.5, 3.0])
    copy = scores.clone().requires_grad_()
    total = logit_loss(scores, copy, temperature=2.0) + margin_loss(scores, copy)
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-6)
    assert copy.grad is not None
    assert copy.grad.abs().max().item() == pytest.approx(0, abs=1e-6)


def test_relation_loss_ignores_a_rotation_inside_each_head() -> None:
    teacher, mask = states()
    rotation = torch.linalg.qr(torch.randn(4, 4))[0]
    turned = (teacher.view(2, 5, 4, 4) @ rotation).reshape(2, 5, 16)
    assert relation_loss(teacher, turned, mask, heads=4).item() == pytest.approx(0, abs=1e-5)


def test_relation_loss_ignores_padding() -> None:
    teacher, mask = states()
    student = torch.randn_like(teacher)
    changed = student.clone()
    changed[1, 3:] = 99.0
    before = relation_loss(teacher, student, mask, heads=4)
    assert torch.isfinite(before)
    assert before.item() == pytest.approx(relation_loss(teacher, changed, mask, 4).item())


def test_relation_loss_compares_models_of_different_width() -> None:
    teacher, mask = states(32)
    student = torch.randn(2, 5, 16, requires_grad=True)
    loss = relation_loss(teacher, student, mask, heads=4)
    loss.backward()
    assert loss.item() > 0
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_logit_loss_is_the_divergence_of_two_coins() -> None:
    teacher, student = torch.tensor([1.2]), torch.tensor([-0.4])
    p, q = torch.sigmoid(teacher / 3), torch.sigmoid(student / 3)
    wanted = 9 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    assert logit_loss(teacher, student, 3.0).item() == pytest.approx(wanted.item(), abs=1e-6)


def test_margin_loss_ignores_a_shift_of_either_model_per_query() -> None:
    teacher = torch.tensor([3.0, 1.0, 0.0, -2.0])
    student = torch.tensor([1.0, 0.5, 2.0, 0.0])
    shift = torch.tensor([5.0, 5.0, -7.0, -7.0])
    plain = margin_loss(teacher, student)
    assert margin_loss(teacher + shift, student).item() == pytest.approx(plain.item())
    assert margin_loss(teacher, student + shift).item() == pytest.approx(plain.item())


@pytest.fixture(scope="module")
def teacher(tiny_data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distill") / "teacher"
    finetune(
        FinetuneConfig(weak=WEAK, stage_a=OPTIM, stage_b=OPTIM), tiny_data, encoder, out, seed=0
    )
    return out


def test_distill_makes_a_smaller_checkpoint_of_the_shape_asked(
    tiny_data: Path, teacher: Path, tmp_path: Path
) -> None:
    numbers = distill(CONFIG, tiny_data, teacher, tmp_path / "student", seed=0)
    student = load(tmp_path / "student")
    assert student.network.config.num_hidden_layers == 1
    assert student.network.config.hidden_size == 16
    assert numbers["distill/student_parameters"] < numbers["distill/teacher_parameters"]
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_student_comes_closer_to_its_teacher(
    tiny_data: Path, teacher: Path, tmp_path: Path
) -> None:
    numbers = {
        steps: distill(
            replace(
                CONFIG,
                relations=replace(OPTIM, steps=0),
                logits=replace(OPTIM, steps=steps, lr=3e-3),
                gold=replace(OPTIM, steps=0),
            ),
            tiny_data,
            teacher,
            tmp_path / f"student{steps}",
            seed=0,
        )["distill-logits/loss"]
        for steps in (1, 60)
    }
    assert numbers[60] < numbers[1]


def test_relation_heads_that_do_not_divide_a_width_are_refused(
    tiny_data: Path, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="relation_heads=5: does not divide the teacher's width"):
        distill(replace(CONFIG, relation_heads=5), tiny_data, teacher, tmp_path / "no", seed=0)


def test_a_dual_encoder_is_refused_as_teacher(
    tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    dual = FinetuneConfig(family="sbert", weak=WEAK, stage_a=OPTIM, stage_b=OPTIM)
    finetune(dual, tiny_data, encoder, tmp_path / "dual", seed=0)
    with pytest.raises(ValueError, match="family 'sbert', want a bert cross-encoder"):
        distill(CONFIG, tiny_data, tmp_path / "dual", tmp_path / "no", seed=0)
