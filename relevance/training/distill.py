"""A teacher's judgment in a small student: relations, then logits, then gold labels.

Sources: Wang et al., "MiniLMv2", 2021 (relations of queries, keys and values); Hinton et al., 2015
(logits at a temperature); Hofstätter et al., 2020 (MarginMSE). We differ in the student's
word embeddings, which start as the teacher's principal components instead of noise.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoTokenizer

from relevance.configs import DistillConfig, LossConfig
from relevance.data.pairs import Pair
from relevance.data.tables import data_hash, has_table
from relevance.data.weak import weak_pairs
from relevance.encoders import check_tokenizer
from relevance.files import new_file, refuse_existing, sha256
from relevance.inference import score_pairs
from relevance.manifest import MANIFEST
from relevance.models import family_config, load, save
from relevance.models.base import Batch
from relevance.models.bert import Bert
from relevance.models.ei_src import EiSrc
from relevance.models.layers import set_dropout, small_bert, start_by_matching
from relevance.models.pruning import prune_words
from relevance.training.finetune import (
    calibrate,
    dev_auc,
    judged_examples,
    pair_length,
    terms_hash,
    to_pairs,
)
from relevance.training.loop import (
    Stage,
    device,
    fingerprint,
    is_main_process,
    native_precision,
    processes,
    state_dir,
    train,
)


def distill(
    config: DistillConfig,
    data: Path,
    teacher: Path,
    out: Path,
    *,
    seed: int,
    vocabulary: Path,
    terms: Path | None = None,
    lessons: Path | None = None,
    state: Path | None = None,
) -> dict[str, float]:
    """Train a student of ``config.shape`` to judge as ``teacher`` does.

    Args:
        config: Shape and the three stages.
        data: Dataset directory.
        teacher: Checkpoint of a BERT cross-encoder.
        out: Checkpoint to make.
        seed: Of weights, pairs and order.
        vocabulary: Tokenizer of the student; it may know words that the teacher's does not.
        terms: From ``learn_terms``; wanted where ``has_terms``.
        lessons: From ``make_lessons`` with this ``teacher``, so that students share them; the
            student's own unless given.
        state: Where training states are kept; beside ``out`` unless given.

    Returns:
        The loop's numbers for each stage, and the size of both models.

    Raises:
        ValueError: The teacher is no BERT cross-encoder, or relations are wanted where
            ``relation_heads`` does not divide a width or the vocabularies differ.
    """
    refuse_existing(out)
    master = _load_teacher(teacher)
    torch.manual_seed(seed)
    student = _student(config, master, vocabulary, terms)
    set_dropout(student, config.dropout)
    if config.relations.steps:
        _check_relations(config, master, student)
    student.learn_by(config.loss)  # refused now rather than after two stages, which are plain
    student.learn_by(LossConfig())
    master.to(device())
    work = state_dir(out, state)
    key = fingerprint(
        config,
        seed,
        data_hash(data),
        sha256(teacher / MANIFEST),
        (vocabulary / "tokenizer.json").read_bytes(),
        terms_hash(terms),
        sha256(lessons) if lessons else "",
    )
    judged = judged_examples(data, "train") if has_table(data, "judgments") else None
    if lessons is None:
        lessons = work / f"lessons-{key}.parquet"
        with processes().main_process_first():
            if not lessons.exists():
                work.mkdir(parents=True, exist_ok=True)
                _teach(config, data, master, lessons, seed)
    pairs = pd.read_parquet(lessons)
    if judged is not None:
        _check_lessons(lessons, pairs, judged)
    numbers = {
        "distill/teacher_parameters": float(sum(p.numel() for p in master.parameters())),
        "distill/student_parameters": float(sum(p.numel() for p in student.parameters())),
        "distill/pairs": float(len(pairs)),
    }
    numbers |= _learn_relations(config, student, master, pairs, seed, work, key)
    numbers |= _learn_logits(config, student, pairs, seed, work, key)
    if judged is not None:
        dev = judged_examples(data, "dev")
        student.learn_by(config.loss)
        if config.gold.steps:
            gold = judged.assign(score=pairs["score"].to_numpy()[: len(judged)])
            numbers |= _learn_gold(config, student, gold, dev, seed, work, key)
        student.to("cpu")
        calibrate(student, dev)
    student.to("cpu")
    if is_main_process():
        save(student, out)
        if state is None:
            shutil.rmtree(work, ignore_errors=True)
    return numbers


def make_lessons(
    config: DistillConfig, data: Path, teacher: Path, out: Path, *, seed: int
) -> dict[str, float]:
    """Let ``teacher`` score the pairs that students learn from, which costs as much as a stage.

    Args:
        config: Of the student: which weak pairs it learns from, beside all judged ones.
        data: Dataset directory.
        teacher: Checkpoint of a BERT cross-encoder.
        out: Table to make: judged pairs, then weak ones, each with the teacher's logit.
        seed: Of the weak pairs.

    Raises:
        ValueError: The teacher is no BERT cross-encoder.
    """
    refuse_existing(out)
    return {"lessons/pairs": float(_teach(config, data, _load_teacher(teacher), out, seed))}


def _teach(config: DistillConfig, data: Path, teacher: Bert, out: Path, seed: int) -> int:
    pairs = weak_pairs(config.weak, data, seed=seed)
    if has_table(data, "judgments"):
        judged = judged_examples(data, "train")
        pairs = pd.concat([judged[pairs.columns], pairs]).drop_duplicates(["query_id", "item_id"])
    scores = score_pairs(
        teacher.to(device()),
        list(pairs["query"]),
        list(pairs["title"]),
        precision=native_precision(),
        progress="teacher scores",
    )
    with new_file(out, replace=True) as partial:
        pairs.assign(score=scores).to_parquet(partial, index=False)
    return len(pairs)


def _check_lessons(path: Path, lessons: pd.DataFrame, judged: pd.DataFrame) -> None:
    """Raise unless ``lessons`` begin with the judged pairs, each once."""
    keys = ["query_id", "item_id"]
    if (
        not lessons[keys]
        .head(len(judged))
        .reset_index(drop=True)
        .equals(judged[keys].reset_index(drop=True))
    ):
        raise ValueError(f"{path}: does not begin with the {len(judged)} judged pairs of the data")


def _load_teacher(checkpoint: Path) -> Bert:
    teacher = load(checkpoint)
    if not isinstance(teacher, Bert) or teacher.network.config.model_type != "bert":
        raise ValueError(f"{checkpoint}: family {teacher.family!r}, want a bert cross-encoder")
    return teacher


def relation_loss(
    teacher: torch.Tensor, student: torch.Tensor, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    """KL divergence between self-relations, averaged over heads and real positions. []

    Args:
        teacher: Queries, keys or values of the teacher's layer. [pairs, seq, hidden_teacher]
        student: The same of the student's. [pairs, seq, hidden_student]
        mask: 1 where a token is real. [pairs, seq]
        heads: Relation heads A_r, dividing both widths.
    """
    target = _relations(teacher, mask, heads)  # [pairs, heads, seq, seq], logarithms
    given = _relations(student, mask, heads)
    # where a key is padding both are -inf, and 0 * (-inf + inf) must count as 0
    divergence = (target.exp() * (target - given).nan_to_num(0.0)).sum(-1)  # [pairs, heads, seq]
    rows = mask[:, None, :].float()
    return (divergence * rows).sum() / (rows.sum() * heads)


def _relations(states: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    pairs, seq, hidden = states.shape
    split = states.float().view(pairs, seq, heads, hidden // heads).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / math.sqrt(hidden // heads)
    scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
    return functional.log_softmax(scores, dim=-1)


def logit_loss(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² times the KL divergence between both sigmoids at temperature T. []"""
    target = torch.sigmoid(teacher / temperature)
    cross = functional.binary_cross_entropy_with_logits(student / temperature, target)
    entropy = functional.binary_cross_entropy(target, target)
    return temperature**2 * (cross - entropy)


def margin_loss(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """MarginMSE between consecutive rows, which must be pairs of the same query. []"""
    wanted = teacher[0::2] - teacher[1::2]
    given = student[0::2] - student[1::2]
    return functional.mse_loss(given, wanted)


@dataclass(frozen=True, slots=True)
class _Duel:
    """Two items of one query, as the teacher scores them."""

    first: Pair
    second: Pair
    first_score: float
    second_score: float


def _student(
    config: DistillConfig, teacher: Bert, vocabulary: Path, terms: Path | None
) -> Bert | EiSrc:
    check_tokenizer(vocabulary)
    tokenizer = AutoTokenizer.from_pretrained(str(vocabulary))
    student = family_config(config).build(small_bert(config.shape, tokenizer), tokenizer, terms)
    assert isinstance(student, Bert | EiSrc)
    start_by_matching(student)
    words, own = _word_embeddings(teacher), _word_embeddings(student)
    if words.shape[1] >= own.shape[1]:
        prune_words(own, tokenizer, words, teacher.tokenizer)
    return student


def _check_relations(config: DistillConfig, teacher: Bert, student: Bert | EiSrc) -> None:
    for name, model in (("teacher", teacher), ("student", student)):
        width = model.network.config.hidden_size
        if width % config.relation_heads:
            raise ValueError(
                f"relation_heads={config.relation_heads}: "
                f"does not divide the {name}'s width {width}"
            )
    if teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        raise ValueError(
            f"relations: the teacher has {len(teacher.tokenizer)} tokens and the student "
            f"{len(student.tokenizer)}; want one vocabulary, or relations.steps=0"
        )


def _word_embeddings(model: Bert | EiSrc) -> torch.Tensor:
    weight = model.network.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight


@contextmanager
def _watch(model: Bert | EiSrc) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the last layer's query, key and value states while the block runs."""
    states: dict[str, torch.Tensor] = {}
    layers: Any = model.network.base_model.encoder
    attention = layers.layer[-1].attention.self

    # of the whole sequence, also where the last layer itself asks for [CLS] alone
    def keep(_m: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        states["query"] = attention.query(inputs[0])
        states["key"] = output
        states["value"] = attention.value(inputs[0])

    handle = attention.key.register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def _learn_relations(
    config: DistillConfig,
    student: Bert | EiSrc,
    teacher: Bert,
    pairs: pd.DataFrame,
    seed: int,
    work: Path,
    key: str,
) -> dict[str, float]:
    if not config.relations.steps:
        return {}

    def loss(batch: Batch, progress: float) -> torch.Tensor:
        with torch.no_grad(), _watch(teacher) as wanted:
            teacher.score(batch)
        with _watch(student) as given:
            student.score(batch)
        mask = batch["attention_mask"]
        losses = [
            relation_loss(wanted[name], given[name], mask, config.relation_heads) for name in wanted
        ]
        return torch.stack(losses).sum()

    # what comes after the last relations has no gradient, and across processes none is waited for
    network: Any = student.network
    last = network.base_model.encoder.layer[-1]
    for idle in (
        last.attention.output,
        last.intermediate,
        last.output,
        network.base_model.pooler,
        network.classifier,
    ):
        idle.requires_grad_(False)
    stage = Stage(
        "distill-relations",
        student,
        to_pairs(pairs.assign(label=0.0)),
        pair_length,
        student.collate,
        loss,
    )
    numbers = train(stage, config.relations, seed=seed, state=work, key=key)
    student.network.requires_grad_(True)
    return numbers


def _learn_logits(
    config: DistillConfig,
    student: Bert | EiSrc,
    pairs: pd.DataFrame,
    seed: int,
    work: Path,
    key: str,
) -> dict[str, float]:
    if not config.logits.steps:
        return {}
    duels = _duels(pairs, seed)

    def collate(examples: Sequence[_Duel]) -> Batch:
        both = [pair for duel in examples for pair in (duel.first, duel.second)]
        scores = [score for duel in examples for score in (duel.first_score, duel.second_score)]
        return {**student.collate(both), "teacher": torch.tensor(scores)}

    def loss(batch: Batch, progress: float) -> torch.Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != "teacher"}
        scores = student.score(inputs)
        matched = logit_loss(batch["teacher"], scores, config.temperature)
        return matched + config.margin_weight * margin_loss(batch["teacher"], scores)

    def length(duel: _Duel) -> int:
        return max(pair_length(duel.first), pair_length(duel.second))

    stage = Stage("distill-logits", student, duels, length, collate, loss)
    return train(stage, config.logits, seed=seed, state=work, key=key)


def _duels(pairs: pd.DataFrame, seed: int) -> list[_Duel]:
    """Chains of each query's items in random order: every item meets the next one."""
    pairs = pairs.sample(frac=1.0, random_state=seed).sort_values("query_id", kind="stable")
    rows = list(zip(pairs["query_id"], pairs["query"], pairs["title"], pairs["score"], strict=True))
    return [
        _Duel(Pair(query, title), Pair(query, other), score, other_score)
        for (query_id, query, title, score), (other_id, _, other, other_score) in pairwise(rows)
        if query_id == other_id
    ]


def _learn_gold(
    config: DistillConfig,
    student: Bert | EiSrc,
    gold: pd.DataFrame,
    dev: pd.DataFrame,
    seed: int,
    work: Path,
    key: str,
) -> dict[str, float]:
    # cross-entropy is linear in the label, so one mixed label is both terms at once
    share = config.teacher_weight / (1 + config.teacher_weight)
    mixed = (1 - share) * gold["label"] + share / (1 + np.exp(-gold["score"]))
    stage = Stage(
        "distill-gold",
        student,
        to_pairs(gold.assign(label=mixed)),
        pair_length,
        student.collate,
        student.loss,
        dev_auc(student, dev) if len(dev) else None,
    )
    return train(stage, config.gold, seed=seed, state=work, key=key)
