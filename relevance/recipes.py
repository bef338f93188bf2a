"""Named configs as functions that ``replace`` one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from relevance.config import override
from relevance.configs import (
    DistillConfig,
    EvaluationConfig,
    FinetuneConfig,
    LossConfig,
    OptimConfig,
    PretrainConfig,
    Recipe,
    RegulariserConfig,
    ShapeConfig,
    TermsConfig,
    VocabularyConfig,
    WeakPairsConfig,
)

_EPSILON = 0.5
"""Of 0.5, 1 and 5 the best on dev queries of the generated shop; 5, the authors', was worse than
no attack (``docs/experiments.md``)."""
_CAT = RegulariserConfig(name="cat", epsilon=_EPSILON)


def smoke() -> Recipe:
    """Every step in seconds, for tests: the metrics mean nothing."""
    optim = OptimConfig(steps=4, batch_size=16, lr=1e-3, save_every=2)
    weak = WeakPairsConfig(pairs=200, candidates=4)
    finetune = FinetuneConfig(weak=weak, stage_a=optim, stage_b=optim)
    return Recipe(
        vocabulary=VocabularyConfig(base_size=500, new_words=50, min_count=2),
        terms=TermsConfig(optim=optim, texts=500),
        pretrain=PretrainConfig(shape=ShapeConfig(layers=2, hidden=64, heads=2), optim=optim),
        teacher=finetune,
        dual=replace(finetune, family="sbert"),
        distill=DistillConfig(
            family="ei_src",
            has_terms=True,
            loss=LossConfig(regulariser=_CAT),
            shape=ShapeConfig(layers=1, hidden=32, heads=2),
            weak=weak,
            relations=optim,
            logits=optim,
            gold=optim,
        ),
        evaluation=EvaluationConfig(resamples=50),
    )


def shop() -> Recipe:
    """The generated shop on a laptop, from random weights, within six minutes.

    The teacher is as small as the student and hardly pretrained: in minutes a larger one learns
    nothing, and a little masked-language modelling undoes its start (``docs/experiments.md``).
    """
    return Recipe(
        vocabulary=VocabularyConfig(base_size=4_000, new_words=2_000),
        pretrain=PretrainConfig(
            shape=ShapeConfig(layers=3, hidden=128, heads=4),
            optim=OptimConfig(steps=50, batch_size=64, lr=1e-4),
        ),
        teacher=FinetuneConfig(
            dropout=0.0,
            # a dual encoder of so few steps has nothing to tell
            guide_weight=0.0,
            weak=WeakPairsConfig(pairs=6_000),
            stage_a=OptimConfig(steps=150, batch_size=64, lr=1e-3, save_every=200),
            stage_b=OptimConfig(
                steps=1_300, batch_size=64, lr=1e-3, eval_every=325, save_every=350
            ),
        ),
        dual=FinetuneConfig(
            family="sbert",
            dropout=0.0,
            stage_a=OptimConfig(steps=0),
            stage_b=OptimConfig(steps=150, batch_size=64, lr=1e-3, save_every=200),
        ),
        terms=TermsConfig(optim=replace(TermsConfig().optim, steps=150)),
        distill=DistillConfig(
            family="ei_src",
            has_terms=True,
            dropout=0.0,
            loss=LossConfig(regulariser=_CAT),
            weak=WeakPairsConfig(pairs=3_000),
            # teacher and student have one shape, and the student's words start as the teacher's
            relations=OptimConfig(steps=0),
            logits=OptimConfig(steps=200, batch_size=64, lr=5e-4, save_every=200),
            gold=OptimConfig(steps=500, batch_size=64, lr=1e-3, eval_every=125, save_every=250),
        ),
    )


def minilm() -> Recipe:
    """Real catalogues without clicks: MiniLM as the teacher's encoder, an hour on two cores.

    No words are added and the encoder is not pretrained further: both cost this sentence encoder
    what it knows (see ``docs/experiments.md``).
    """
    return Recipe(
        vocabulary=VocabularyConfig(encoder="minilm", new_words=0),
        pretrain=PretrainConfig(optim=OptimConfig(steps=0)),
        dual=FinetuneConfig(
            family="sbert",
            dropout=0.0,
            train_words=False,
            stage_a=OptimConfig(steps=0),
            stage_b=OptimConfig(steps=120, lr=2e-5),
        ),
        teacher=FinetuneConfig(
            dropout=0.0,
            train_words=False,
            guide_weight=0.7,
            judged_copies=3,
            weak=WeakPairsConfig(pairs=3_500, negatives=4),
            stage_a=OptimConfig(steps=500, batch_size=64, lr=2e-4),
            stage_b=OptimConfig(steps=90, lr=1e-5, eval_every=30),
        ),
        distill=DistillConfig(
            weak=WeakPairsConfig(pairs=1_500, negatives=4, candidates=20),
            relations=OptimConfig(steps=60, batch_size=64, lr=1e-3),
            logits=OptimConfig(steps=900, batch_size=48, lr=1e-3, save_every=300),
            gold=OptimConfig(steps=120, lr=1e-4, eval_every=40),
        ),
    )


def bert_base() -> Recipe:
    """The largest encoder at hand, MiniLM, as a cross-encoder: the model to reach.

    Its labels of weak pairs are softened by ``sbert_base``. Name any encoder of the BERT or
    RoBERTa kind by ``vocabulary.encoder``: roberta-base, or a directory with StructBERT.
    """
    recipe = minilm()
    return replace(
        recipe,
        ends_in="teacher",
        # the shop's words are a student's alone, so that both share this teacher
        pretrain=replace(recipe.pretrain, extend=False),
    )


def sbert_base() -> Recipe:
    """The same encoder as a dual encoder."""
    return replace(bert_base(), ends_in="dual")


_WEAK = WeakPairsConfig(pairs=20_000, negatives=4)
# with a warm-up of a tenth one run in six stays where it started (docs/experiments.md)
_STAGE_A = OptimConfig(steps=400, batch_size=64, lr=1e-3, warmup=0.3, save_every=200)
_STAGE_B = OptimConfig(steps=700, batch_size=64, lr=1e-3, eval_every=175, save_every=350)


def bert_mini() -> Recipe:
    """A cross-encoder of ei-SRC's shape, whose words start as MiniLM's pruned to its width."""
    return Recipe(
        ends_in="teacher",
        vocabulary=VocabularyConfig(encoder="minilm", new_words=0),
        pretrain=PretrainConfig(
            start="pruned",
            shape=ShapeConfig(layers=3, hidden=128, heads=4),
            optim=OptimConfig(steps=0),
        ),
        teacher=FinetuneConfig(
            guide_weight=0.0, dropout=0.0, weak=_WEAK, stage_a=_STAGE_A, stage_b=_STAGE_B
        ),
    )


def sbert_mini() -> Recipe:
    """A dual encoder of that shape."""
    mini = bert_mini()
    return replace(mini, ends_in="dual", dual=replace(mini.teacher, family="sbert"))


def ablation_bert() -> Recipe:
    """Ablation of ei-SRC, row 1: BERT mini, padded to the caps as before DRS."""
    mini = bert_mini()
    return replace(mini, teacher=replace(mini.teacher, family="ei_src", layout="fixed"))


def ablation_vocabulary() -> Recipe:
    """Ablation of ei-SRC, row 2: and the shop's words in the vocabulary."""
    row = ablation_bert()
    words = replace(row.vocabulary, new_words=2_000, only_strangers=True)
    return replace(row, vocabulary=words)


def ablation_drs() -> Recipe:
    """Ablation of ei-SRC, row 3: and rows of dynamic length (DRS)."""
    row = ablation_vocabulary()
    return replace(row, teacher=replace(row.teacher, layout="contiguous"))


def ablation_terms() -> Recipe:
    """Ablation of ei-SRC, row 4: and classes of terms."""
    row = ablation_drs()
    return replace(row, teacher=replace(row.teacher, has_terms=True))


def ablation_at() -> Recipe:
    """Ablation of ei-SRC, row 5: and adversarial training (AT)."""
    attack = replace(_CAT, weights=(0.5, 0.5, 0.0))
    return _with_loss(ablation_terms(), LossConfig(regulariser=attack))


def ablation_cat() -> Recipe:
    """Ablation of ei-SRC, row 6: and contrastive adversarial training (CAT)."""
    return _with_loss(ablation_terms(), LossConfig(regulariser=_CAT))


def ei_src_mini() -> Recipe:
    """ei-SRC in full, row 7: all parts of its ablation, and a teacher, ``bert_base``."""
    base, row = bert_base(), ablation_cat()
    return replace(
        base,
        ends_in="student",
        vocabulary=row.vocabulary,
        distill=DistillConfig(
            family="ei_src",
            has_terms=True,
            dropout=0.0,
            loss=row.teacher.loss,
            shape=row.pretrain.shape,
            # the teacher judges each of them, at the cost of training on it
            weak=replace(_WEAK, pairs=3_000),
            relations=OptimConfig(steps=0),
            logits=_STAGE_A,
            gold=_STAGE_B,
        ),
    )


def regulariser_none() -> Recipe:
    """Row 4 with no regulariser, at as many forward passes as CAT takes: twice the steps."""
    return _alternative(RegulariserConfig())


def regulariser_fgm() -> Recipe:
    """Row 4 with FGM, which as measured here is row 5: AT."""
    return _alternative(RegulariserConfig(name="fgm", epsilon=_EPSILON))


def regulariser_pgd() -> Recipe:
    """Row 4 with PGD instead of CAT, which climbs twice: two thirds of the steps."""
    climbing = RegulariserConfig(name="pgd", epsilon=_EPSILON, step_size=_EPSILON / 2)
    return _alternative(climbing)


def regulariser_freelb() -> Recipe:
    """Row 4 with FreeLB instead of CAT."""
    climbing = RegulariserConfig(name="freelb", epsilon=_EPSILON, step_size=_EPSILON / 2)
    return _alternative(climbing)


def regulariser_rdrop() -> Recipe:
    """Row 4 with R-Drop instead of CAT, and the dropout that it needs."""
    recipe = _alternative(RegulariserConfig(name="rdrop"))
    return replace(recipe, teacher=replace(recipe.teacher, dropout=0.1))


def heated_softmax() -> Recipe:
    """Row 4 with heated-up softmax: logits times 4, then 1, then a half."""
    return _with_loss(ablation_terms(), LossConfig(heat=(4, 1, 0.5), heat_until=(0.6, 0.9, 1)))


def word_drop() -> Recipe:
    """ei-SRC with a view of each title that lost words without a term class."""
    row = ei_src_mini()
    loss = replace(row.distill.loss, word_drop=1.0)
    return replace(row, distill=replace(row.distill, loss=loss))


def _alternative(regulariser: RegulariserConfig) -> Recipe:
    """Row 4 with ``regulariser`` and as many forward passes in stage B as row 6 takes."""
    row = _with_loss(ablation_terms(), LossConfig(regulariser=regulariser))
    stage = replace(
        _STAGE_B,
        steps=_STAGE_B.steps * _CAT.forward_passes // regulariser.forward_passes,
        eval_every=_STAGE_B.eval_every * _CAT.forward_passes // regulariser.forward_passes,
    )
    return replace(row, teacher=replace(row.teacher, stage_b=stage))


def _with_loss(recipe: Recipe, loss: LossConfig) -> Recipe:
    return replace(recipe, teacher=replace(recipe.teacher, loss=loss))


RECIPES: Mapping[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        smoke,
        shop,
        minilm,
        ei_src_mini,
        bert_base,
        sbert_base,
        bert_mini,
        sbert_mini,
        ablation_bert,
        ablation_vocabulary,
        ablation_drs,
        ablation_terms,
        ablation_at,
        ablation_cat,
        regulariser_none,
        regulariser_fgm,
        regulariser_pgd,
        regulariser_freelb,
        regulariser_rdrop,
        heated_softmax,
        word_drop,
    )
}


def recipe_config(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe ``name`` with ``key=value`` overrides.

    Raises:
        ValueError: Unknown recipe, or see ``relevance.config.override``.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: unknown; there are {', '.join(RECIPES)}")
    return override(RECIPES[name](), overrides)


def pipeline_config(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """As ``recipe_config``, for the whole pipeline.

    Raises:
        ValueError: The recipe is for one of the models that a student learns from.
    """
    recipe = recipe_config(name, overrides)
    if recipe.ends_in != "student":
        raise ValueError(
            f"recipe {name!r}: ends in the {recipe.ends_in}, and the pipeline in a student; "
            f"train it with `querylift compare --recipes {name}`"
        )
    return recipe
