"""Every setting of every step: frozen, typed, checked when made.

They stand in one module, free of heavy imports, because the images that validate data carry
no torch and the command line must answer at once; see ``docs/decisions/0003-configs.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _at_least(config: object, **least: float) -> None:
    for name, bound in least.items():
        value = getattr(config, name)
        _require(value >= bound, f"{name} is {value}, want {bound} or more")


def _shares(config: object, *names: str) -> None:
    for name in names:
        share = getattr(config, name)
        _require(0 <= share <= 1, f"{name} is {share}, want 0 to 1")


@dataclass(frozen=True)
class ContractConfig:
    """What ``validate_data`` demands of a dataset."""

    min_queries: int = 10
    """Volume band: fewer queries block."""
    min_products: int = 50
    """Volume band: fewer products block."""
    min_judgments: int = 50
    """Volume band: fewer judgments block."""
    max_title_chars: int = 10_000
    """A longer title blocks: it is a broken export, not a title."""
    max_rows_named: int = 20
    """Offending rows named per expectation in the report."""
    min_events: int = 1
    """Volume band: fewer events block, where there is an events table."""
    min_split_share: float = 0.02
    """A split with a smaller share of the queries warns."""
    max_query_chars: int = 1_000
    """A longer query blocks."""
    max_broken_share: float = 0.01
    """Texts with replacement or control characters warn; more than this share of them blocks."""
    max_orphan_share: float = 0.01
    """Clicks without impression, orders without click, pays without order, and events of unknown
    queries or items warn; more than this share of them blocks."""
    min_word_count: int = 2
    """A word that was seen less often does not belong in a vocabulary."""

    def __post_init__(self) -> None:
        _shares(self, "min_split_share", "max_broken_share", "max_orphan_share")
        _require(
            self.max_rows_named >= 3, f"max_rows_named is {self.max_rows_named}, want 3 or more"
        )


@dataclass(frozen=True)
class VocabularyConfig:
    """How the tokenizer is made and extended."""

    encoder: str = ""
    """Encoder whose WordPiece vocabulary is extended: ``minilm``, a directory or a hub name;
    empty learns a base vocabulary from the dataset."""
    base_size: int = 4_000
    """Word pieces of a vocabulary learnt from scratch; unused with a named encoder."""
    new_words: int = 2_000
    """Most frequent split words to add. [words] The ei-SRC paper adds 20,000."""
    min_count: int = 5
    """A word seen less often is not added."""
    only_strangers: bool = False
    """Whether words that something matches in part keep their pieces. Added are then words of
    titles (in queries alone stand slips), of letters alone (``12v`` whole has nothing in common
    with ``12 v``, nor ``wi-fi`` with ``wifi``), and without relatives in the shop: not two words
    in one, beginning with none and beginning none, as ``smartwatch``, ``plugs`` and ``plug`` do.
    Brands are left, mostly."""

    def __post_init__(self) -> None:
        _require(self.base_size >= 200, f"base_size is {self.base_size}, want 200 or more")
        _require(self.new_words >= 0, f"new_words is {self.new_words}, want 0 or more")
        _require(self.min_count >= 1, f"min_count is {self.min_count}, want 1 or more")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and decay, and the loop around it."""

    steps: int = 100
    """Optimizer steps. 0 skips the stage."""
    batch_size: int = 32
    """Examples per optimizer step, over all processes and accumulated passes."""
    accumulate: int = 1
    """Passes a batch is cut into, per process."""
    lr: float = 5e-5
    """Peak learning rate."""
    warmup: float = 0.1
    """Share of steps that warm up."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices; biases and norms have none."""
    clip: float = 1.0
    """Largest gradient norm."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` is bf16 where the processor multiplies it natively, else fp32."""
    eval_every: int = 0
    """Steps between validations; 0 validates at the end only."""
    patience: int = 3
    """Validations without improvement before stopping."""
    save_every: int = 50
    """Steps between training states a killed run resumes from."""

    def __post_init__(self) -> None:
        _require(self.steps >= 0, f"steps is {self.steps}, want 0 or more")
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}, want 1 or more")
        _require(self.accumulate >= 1, f"accumulate is {self.accumulate}, want 1 or more")
        _require(
            self.batch_size % self.accumulate == 0,
            f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}",
        )
        _require(self.lr > 0, f"lr is {self.lr}, want above 0")
        _require(0 <= self.warmup <= 1, f"warmup is {self.warmup}, want 0 to 1")
        _at_least(self, weight_decay=0, clip=0, eval_every=0, patience=0, save_every=1)


@dataclass(frozen=True)
class ShapeConfig:
    """Size of a BERT encoder made from scratch."""

    layers: int = 3
    hidden: int = 128
    heads: int = 4

    def __post_init__(self) -> None:
        _require(self.layers >= 1, f"layers is {self.layers}, want 1 or more")
        _require(self.heads >= 1, f"heads is {self.heads}, want 1 or more")
        _require(
            self.hidden % self.heads == 0,
            f"hidden {self.hidden} is no multiple of heads {self.heads}",
        )


@dataclass(frozen=True)
class PretrainConfig:
    """Continued masked-language modelling."""

    start: Literal["encoder", "pruned", "random"] = "encoder"
    """Of the encoder that the vocabulary names: all of it; a small one of ``shape`` whose words
    are its principal components; or random weights with its tokenizer alone."""
    extend: bool = True
    """Whether the encoder gets the added words; without them only a student may."""
    shape: ShapeConfig = field(default_factory=lambda: ShapeConfig(layers=6, hidden=256, heads=8))
    """Used when there is no encoder to start from."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    mask: float = 0.15
    """Share of tokens hidden."""
    max_tokens: int = 64

    def __post_init__(self) -> None:
        _require(0 < self.mask <= 1, f"mask is {self.mask}, want above 0, at most 1")
        _at_least(self, max_tokens=3)


@dataclass(frozen=True)
class WeakPairsConfig:
    """Pairs without a judge: from clicks where there are some, else from the catalogue."""

    pairs: int = 20_000
    """Positive pairs at most."""
    negatives: int = 3
    """Negatives per positive: half of the same category, half random."""
    candidates: int = 32
    """Items brought up for each train query of a catalogue without clicks, unlabelled."""
    min_query_words: int = 1
    """Shorter queries are left out. The ei-SRC paper wants 2."""

    def __post_init__(self) -> None:
        _at_least(self, pairs=1, negatives=0, candidates=0, min_query_words=0)


@dataclass(frozen=True)
class TermsConfig:
    """How the tagger of term classes is learnt."""

    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            steps=500, batch_size=128, lr=1e-2, weight_decay=0.0, precision="fp32"
        )
    )
    """Of the BIO tagger; 0 steps leave the gazetteer alone."""
    texts: int = 50_000
    """Products, and train queries, at most that the gazetteer and the tagger learn from."""
    min_count: int = 3
    """A phrase seen in fewer titles does not enter the gazetteer."""
    confidence: float = 0.35
    """Least probability of a class for the tagger to name it. At 0.5 its recall of titles on
    the generated shop falls from 0.94 to 0.90, its precision rises from 0.989 to 0.996."""

    def __post_init__(self) -> None:
        _at_least(self, texts=1, min_count=1)
        _shares(self, "confidence")


@dataclass(frozen=True)
class RegulariserConfig:
    """What is added to the loss to make the model hold still; see ``relevance.regularisers``."""

    name: Literal["none", "cat", "fgm", "pgd", "freelb", "rdrop"] = "none"
    epsilon: float = 5.0
    """Length of a pair's perturbation, over all its tokens, beside an input of about the square
    root of tokens times width. The ei-SRC paper gives none, its authors' code 5."""
    weights: tuple[float, float, float] = (0.5, 0.5, 0.01)
    """CAT's shares of the clean loss, the loss under attack, and their divergence: ei-SRC's
    equation 7. A last share of 0 leaves adversarial training (AT) alone."""
    ascents: int = 2
    """Steps up the loss that PGD takes, after a pass without any; passes that FreeLB averages,
    with a step from each to the next."""
    step_size: float = 2.5
    """Length of each such step; ``epsilon`` bounds where they lead."""
    divergence: float = 1.0
    """R-Drop's weight of the divergence between its two passes."""
    reuse_dropout: bool = False
    """Whether both passes of CAT drop the same units; drawing anew is R-Drop for free."""

    def __post_init__(self) -> None:
        _at_least(self, epsilon=0, ascents=1, step_size=0, divergence=0)
        _require(
            len(self.weights) == 3 and min(self.weights) >= 0 and sum(self.weights) > 0,
            f"weights are {self.weights}, want three, none below 0 and one above",
        )

    @property
    def forward_passes(self) -> int:
        """How often a step judges its batch: what a fair comparison holds equal.

        >>> RegulariserConfig(name="pgd", ascents=3).forward_passes
        4
        """
        return {
            "none": 1,
            "cat": 2,
            "fgm": 2,
            "pgd": 1 + self.ascents,
            "freelb": self.ascents,
            "rdrop": 2,
        }[self.name]


@dataclass(frozen=True)
class LossConfig:
    """ei-SRC's training loss; the defaults are plain cross-entropy, which all families have."""

    heat: tuple[float, ...] = (1.0,)
    """Heated-up softmax: what logits are multiplied by, one factor a part of the stage. ei-SRC's
    begins large and ends minimal. Scoring knows no heat."""
    heat_until: tuple[float, ...] = (1.0,)
    """Share of the stage's steps up to which each factor holds."""
    regulariser: RegulariserConfig = field(default_factory=RegulariserConfig)
    word_drop: float = 0.0
    """Weight of a second view of each title that lost words without a term class."""
    word_drop_share: float = 0.5
    """Chance of such a word to be lost."""

    def __post_init__(self) -> None:
        _at_least(self, word_drop=0)
        _shares(self, "word_drop_share")
        _require(
            len(self.heat) == len(self.heat_until),
            f"heat {self.heat} and heat_until {self.heat_until} differ in length",
        )
        _require(
            all(alpha > 0 for alpha in self.heat), f"heat is {self.heat}, want factors above 0"
        )
        _require(
            self.heat_until[-1:] == (1,)
            and all(a < b for a, b in pairwise((0.0, *self.heat_until))),
            f"heat_until is {self.heat_until}, want rising shares above 0 up to 1: "
            "the schedule must cover the run",
        )

    def heat_at(self, progress: float) -> float:
        """Factor at ``progress``, the share of the stage's steps that are done.

        >>> LossConfig(heat=(4.0, 1.0, 0.5), heat_until=(0.6, 0.9, 1.0)).heat_at(0.6)
        1.0
        """
        parts = zip(self.heat, self.heat_until, strict=True)
        return next((alpha for alpha, end in parts if progress < end), self.heat[-1])


@dataclass(frozen=True)
class FinetuneConfig:
    """Stage A on weak pairs, then stage B on judgments."""

    family: Literal["bert", "sbert", "ei_src"] = "bert"
    max_query_tokens: int = 16
    """ei-SRC's cap."""
    max_title_tokens: int = 36
    """ei-SRC's cap."""
    layout: Literal["contiguous", "segments", "fixed"] = "contiguous"
    """ei_src: ``fixed`` pads query and title each to its cap, ``segments`` is the paper's dynamic
    length, ``contiguous`` pads nothing in between."""
    has_terms: bool = False
    """ei_src: whether the classes of terms are embedded."""
    loss: LossConfig = field(default_factory=LossConfig)
    """ei_src: of stage B; stage A is plain cross-entropy."""
    dropout: float = 0.1
    """Of every layer while training."""
    train_words: bool = True
    """Whether word embeddings learn too: with few pairs they overfit, at a third of the cost."""
    weak: WeakPairsConfig = field(default_factory=WeakPairsConfig)
    guide_weight: float = 0.5
    """Share of the guide's probability in stage A's labels, where a guide is given."""
    judged_copies: int = 0
    """Copies of the judged train pairs mixed into stage A; a few keep a small set of judgments
    from being learnt by heart in stage B."""
    stage_a: OptimConfig = field(default_factory=OptimConfig)
    stage_b: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        _at_least(self, max_query_tokens=1, max_title_tokens=1, judged_copies=0)
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}, want 0 or more, below 1")
        _shares(self, "guide_weight")


@dataclass(frozen=True)
class DistillConfig:
    """Teacher to student: relations, then logits, then gold labels."""

    family: Literal["bert", "ei_src"] = "bert"
    max_query_tokens: int = 16
    """See ``FinetuneConfig``, as the next four."""
    max_title_tokens: int = 36
    layout: Literal["contiguous", "segments", "fixed"] = "contiguous"
    has_terms: bool = False
    dropout: float = 0.1
    loss: LossConfig = field(default_factory=LossConfig)
    """ei_src: of the gold stage."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    weak: WeakPairsConfig = field(default_factory=WeakPairsConfig)
    relation_heads: int = 16
    """MiniLMv2's A_r; it must divide both widths. Relations want one vocabulary on both sides."""
    temperature: float = 2.0
    margin_weight: float = 1.0
    """Weight of MarginMSE beside logit distillation."""
    teacher_weight: float = 0.5
    """Weight of the teacher's probabilities beside gold labels, whose weight is 1."""
    relations: OptimConfig = field(default_factory=OptimConfig)
    logits: OptimConfig = field(default_factory=OptimConfig)
    gold: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        _at_least(
            self,
            max_query_tokens=1,
            max_title_tokens=1,
            relation_heads=1,
            margin_weight=0,
            teacher_weight=0,
        )
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}, want 0 or more, below 1")
        _require(self.temperature > 0, f"temperature is {self.temperature}, want above 0")


@dataclass(frozen=True)
class EvaluationConfig:
    """How checkpoints are judged."""

    split: Literal["train", "valid", "test"] = "valid"
    relevant_grade: float = 3.0
    """A pair of this grade or better is relevant in binary metrics: ei-SRC asks that subject,
    core keywords and units all agree."""
    gains: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0)
    """nDCG's gain of grades 0, 1, 2, 3: the ESCI paper's I, C, S, E."""
    resamples: int = 1_000
    """Bootstrap resamples of queries."""
    seed: int = 0
    """Seed of the resamples; comparisons on one seed are paired."""

    def __post_init__(self) -> None:
        _require(
            0 < self.relevant_grade <= 3,
            f"relevant_grade is {self.relevant_grade}, want above 0, at most 3",
        )
        _require(
            len(self.gains) == 4 and list(self.gains) == sorted(self.gains),
            f"gains are {self.gains}, want one for each grade 0 to 3, never falling",
        )
        _require(
            self.gains[0] >= 0 and self.gains[-1] > 0,
            f"gains are {self.gains}, want none below 0 and the last above 0",
        )
        _require(self.resamples >= 1, f"resamples is {self.resamples}, want 1 or more")


@dataclass(frozen=True)
class RegisterConfig:
    """Under which name, and when, a checkpoint is registered."""

    name: str = "relevance"
    """Registered model."""
    metric: str = "roc_auc"
    """Metric the champion must be beaten on."""


@dataclass(frozen=True)
class Recipe:
    """A whole run of the training pipeline."""

    seed: int = 0
    ends_in: Literal["dual", "teacher", "student"] = "student"
    """The model that the recipe is for, and that ``compare`` trains and judges."""
    contract: ContractConfig = field(default_factory=ContractConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    terms: TermsConfig = field(default_factory=TermsConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    teacher: FinetuneConfig = field(default_factory=FinetuneConfig)
    dual: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(family="sbert"))
    distill: DistillConfig = field(default_factory=DistillConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    register: RegisterConfig = field(default_factory=RegisterConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, f"seed is {self.seed}, want 0 or more, below 2**32")
