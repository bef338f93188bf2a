"""Bodies of requests and answers. Unknown fields are refused; nothing is coerced."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
TeiErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class Request(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What all requests share: strictness."""


class TextDocument(Request, frozen=True, kw_only=True):
    """A document as an object."""

    text: str


class CohereRequest(Request, frozen=True, kw_only=True):
    """Rerank as Cohere and Jina have it."""

    query: str
    documents: list[str | TextDocument]
    model: str | None = None
    """Any name: one server has one model, and the answer names it."""
    top_n: Count | None = None
    """Most results; absent, null or 0: all."""
    return_documents: bool | None = None
    max_tokens_per_doc: Count | None = None
    """Taken for Cohere's clients. The model's own caps hold."""
    max_chunks_per_doc: Count | None = None
    """Taken for Cohere's clients. A title is one chunk."""
    rank_fields: list[Literal["text"]] | None = None
    """Taken for Cohere's clients. A document has no other field."""


class CohereResult(Struct, frozen=True, omit_defaults=True):
    """A document's relevance."""

    index: int
    relevance_score: float
    document: TextDocument | UnsetType = UNSET


class Usage(Struct, frozen=True):
    """What the model read."""

    total_tokens: int


class CohereVersion(Struct, frozen=True):
    """Of Cohere's API, by the path asked."""

    version: str


class CohereUnits(Struct, frozen=True):
    """What Cohere would bill."""

    search_units: int


class CohereTokens(Struct, frozen=True):
    """Tokens, in Cohere's words."""

    input_tokens: int
    output_tokens: int


class CohereMeta(Struct, frozen=True):
    """About the call."""

    api_version: CohereVersion
    billed_units: CohereUnits
    tokens: CohereTokens


class CohereResponse(Struct, frozen=True):
    """Documents by falling relevance, ties by index."""

    id: str
    model: str
    results: list[CohereResult]
    usage: Usage
    meta: CohereMeta


class CohereError(Struct, frozen=True):
    """An error, in all shapes but text-embeddings-inference's."""

    message: str


class TeiRequest(Request, frozen=True, kw_only=True):
    """Rerank as text-embeddings-inference has it."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    """Raw scores in place of probabilities."""
    return_text: bool = False
    truncate: bool | None = None
    """False refuses texts longer than the model's caps; absent or null cuts them."""
    truncation_direction: Literal["Right", "right"] = "Right"
    """Of which end a long text loses; the model knows this one."""
    top_n: Count | None = None
    """Most results; no part of the convention, but LiteLLM sends it."""


class TeiRank(Struct, frozen=True, omit_defaults=True):
    """A text's score."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class TeiError(Struct, frozen=True):
    """An error, where the body had ``texts``."""

    error: str
    error_type: TeiErrorType


class Pair(Request, frozen=True, kw_only=True):
    """A query and a title."""

    query: str
    title: str


class ScoreRequest(Request, frozen=True, kw_only=True):
    """Pairs, each with a query of its own."""

    pairs: list[Pair]


class ScoreResponse(Struct, frozen=True):
    """Scores in the order asked."""

    model: str
    version: str
    scores: list[float]
    """Raw."""
    probabilities: list[float]
    """Calibrated."""
    usage: Usage


class RelevanceOptions(Request, frozen=True, kw_only=True):
    """A call of a search engine, without its items."""

    query: str
    threshold: Share = 0.0
    """Items less relevant are dropped."""
    max_results: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 2_000
    """Most items that are kept; the default is the ei-SRC paper's."""
    weight: Share = 0.5
    """Of relevance against the ranking score; see ``serving.ordering``."""


class RelevanceRequest(RelevanceOptions, frozen=True, kw_only=True):
    """A call of a search engine."""

    item_ids: list[str]
    ranking_scores: list[float] | None = None
    """The engine's own, one per item and higher for better."""


class RelevanceResult(Struct, frozen=True):
    """An item that is kept."""

    item_id: str
    index: int
    """Place in the request."""
    relevance: float
    """Calibrated probability."""
    score: float
    """What the order is by; see ``serving.ordering``."""


class RelevanceFacts(Struct, frozen=True, kw_only=True):
    """About the call."""

    model: str
    version: str
    unknown: list[str]
    """Item ids that the item table lacks, in the order asked."""
    below_threshold: int
    """Known items that were dropped for their relevance."""
    usage: Usage


class RelevanceResponse(RelevanceFacts, frozen=True, kw_only=True):
    """Items by falling score, ties by index."""

    results: list[RelevanceResult]


class ExplainRequest(Request, frozen=True, kw_only=True):
    """What the page at / asks."""

    query: str
    titles: list[str]


class Word(Struct, frozen=True):
    """A word with its term class, or an empty one."""

    text: str
    term_class: str


class ExplainedTitle(Struct, frozen=True):
    """A title's score and words."""

    index: int
    score: float
    probability: float
    words: list[Word]


class ExplainResponse(Struct, frozen=True):
    """Titles by falling probability, ties by index."""

    model: str
    version: str
    query: list[Word]
    results: list[ExplainedTitle]


class ModelCard(Struct, frozen=True):
    """The model that answers."""

    id: str
    version: str
    """Hash of the checkpoint."""
    source: str
    """Where it was loaded from."""
    object: str = "model"


class ModelList(Struct, frozen=True):
    """All models here: one."""

    data: list[ModelCard]
    object: str = "list"


class Health(Struct, frozen=True):
    """That a probe is fine."""

    status: str = "ok"
