"""The identities of distillation losses, and a student that learns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from relevance.configs import (
    DistillConfig,
    FinetuneConfig,
    LossConfig,
    OptimConfig,
    RegulariserConfig,
    ShapeConfig,
    TermsConfig,
    WeakPairsConfig,
)
from relevance.data.tagger import learn_terms
from relevance.models import load
from relevance.models.ei_src import EiSrc
from relevance.models.pruning import _rows_of
from relevance.training.distill import distill, logit_loss, make_lessons, margin_loss, relation_loss
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
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    numbers = distill(CONFIG, tiny_data, teacher, out, seed=0, vocabulary=vocabulary)
    student = load(tmp_path / "student")
    assert student.network.config.num_hidden_layers == 1
    assert student.network.config.hidden_size == 16
    assert numbers["distill/student_parameters"] < numbers["distill/teacher_parameters"]
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_student_comes_closer_to_its_teacher(
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
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
            vocabulary=vocabulary,
        )["distill-logits/loss"]
        for steps in (1, 60)
    }
    assert numbers[60] < numbers[1]


def test_students_may_share_their_lessons(
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    lessons = tmp_path / "lessons.parquet"
    made = make_lessons(CONFIG, tiny_data, teacher, lessons, seed=0)
    for name, given in (("own", None), ("shared", lessons)):
        out = tmp_path / name
        numbers = distill(
            CONFIG, tiny_data, teacher, out, seed=0, vocabulary=vocabulary, lessons=given
        )
        assert numbers["distill/pairs"] == made["lessons/pairs"]
    own, shared = (load_file(tmp_path / name / "model.safetensors") for name in ("own", "shared"))
    for name in own:
        np.testing.assert_allclose(shared[name], own[name], atol=1e-6)


def test_lessons_of_other_judgments_are_refused(
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    lessons = tmp_path / "lessons.parquet"
    make_lessons(CONFIG, tiny_data, teacher, lessons, seed=0)
    pd.read_parquet(lessons).iloc[1:].to_parquet(lessons)
    with pytest.raises(ValueError, match=r"lessons\.parquet: does not begin with the \d+ judged"):
        distill(
            CONFIG,
            tiny_data,
            teacher,
            tmp_path / "student",
            seed=0,
            vocabulary=vocabulary,
            lessons=lessons,
        )


def test_an_ei_src_student_learns_its_gold_labels_under_attack(
    clicked_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    terms, out = tmp_path / "terms", tmp_path / "student"
    learn_terms(TermsConfig(OptimConfig(steps=0)), clicked_data, terms, seed=0)
    config = replace(
        CONFIG,
        family="ei_src",
        has_terms=True,
        loss=LossConfig(regulariser=RegulariserConfig(name="cat")),
    )
    distill(config, clicked_data, teacher, out, seed=0, vocabulary=vocabulary, terms=terms)
    student = load(out)
    assert isinstance(student, EiSrc)
    assert student.terms is not None
    assert student.terms.weight[1:].abs().sum() > 0
    assert student.calibration is not None  # fitted on the dev queries


def test_a_students_own_words_start_as_the_mean_of_the_teachers_pieces(
    vocabulary: Path, tmp_path: Path
) -> None:
    known = AutoTokenizer.from_pretrained(str(vocabulary))
    wanted = AutoTokenizer.from_pretrained(str(vocabulary))
    wanted.add_tokens(["acme"])
    rows = torch.randn(len(known), 8)
    found = _rows_of(known, wanted, rows)
    assert torch.equal(found[: len(known)], rows)
    mean = rows[known("acme", add_special_tokens=False)["input_ids"]].mean(0)
    assert torch.cosine_similarity(found[-1], mean, dim=0).item() == pytest.approx(1)
    assert found[-1].norm().item() == pytest.approx(rows.norm(dim=1).mean().item())


def test_relations_between_two_vocabularies_are_refused(
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    other = tmp_path / "vocabulary"
    shutil.copytree(vocabulary, other)
    tokenizer = AutoTokenizer.from_pretrained(str(vocabulary))
    tokenizer.add_tokens(["acme"])
    tokenizer.save_pretrained(other)
    count = len(tokenizer)
    with pytest.raises(ValueError, match=f"{count - 1} tokens and the student {count}; want one"):
        distill(CONFIG, tiny_data, teacher, tmp_path / "no", seed=0, vocabulary=other)


def test_relation_heads_that_do_not_divide_a_width_are_refused(
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    config, out = replace(CONFIG, relation_heads=5), tmp_path / "no"
    with pytest.raises(ValueError, match="relation_heads=5: does not divide the teacher's width"):
        distill(config, tiny_data, teacher, out, seed=0, vocabulary=vocabulary)


def test_a_dual_encoder_is_refused_as_teacher(
    tiny_data: Path, encoder: Path, vocabulary: Path, tmp_path: Path
) -> None:
    dual = FinetuneConfig(family="sbert", weak=WEAK, stage_a=OPTIM, stage_b=OPTIM)
    finetune(dual, tiny_data, encoder, tmp_path / "dual", seed=0)
    with pytest.raises(ValueError, match="family 'sbert', want a bert cross-encoder"):
        distill(
            CONFIG, tiny_data, tmp_path / "dual", tmp_path / "no", seed=0, vocabulary=vocabulary
        )


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from relevance.configs import DistillConfig, OptimConfig, ShapeConfig, WeakPairsConfig
from relevance.training.distill import distill, logit_loss, make_lessons, margin_loss, relation_loss
optim = OptimConfig(steps=4, batch_size=8, lr=1e-3, save_every=2, precision="fp32")
config = DistillConfig(
    shape=ShapeConfig(layers=1, hidden=16, heads=2), weak=WeakPairsConfig(pairs=40),
    relation_heads=4, dropout=0.0, relations=optim, logits=optim, gold=optim,
)
data, teacher, vocabulary, out = map(Path, sys.argv[2:])
distill(config, data, teacher, out, seed=0, vocabulary=vocabulary)
"""


def test_two_processes_distill_what_one_distills(
    tiny_data: Path, teacher: Path, vocabulary: Path, tmp_path: Path
) -> None:
    script, root = tmp_path / "distill.py", Path(__file__).resolve().parents[3]
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    arguments = [script, root, tiny_data, teacher, vocabulary, tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, [line for line in done.stderr.splitlines() if "Error" in line]
    distill(
        replace(CONFIG, dropout=0.0),
        tiny_data,
        teacher,
        tmp_path / "one",
        seed=0,
        vocabulary=vocabulary,
    )
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    # Adam turns the rounding of a gradient near 0 into a whole step, so not every number agrees
    for name in one:
        assert np.median(np.abs(one[name] - two[name])) < 1e-4, name
