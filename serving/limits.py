"""What a request may ask of a scorer, and how long it may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Bounds of a request; beyond them the answer is 413, or 408 for time.

    Raises:
        ValueError: A limit is not positive.
    """

    max_documents: int = 5_000
    """Titles, pairs or items a request; the ei-SRC paper sends 3,000 to 5,000."""
    max_explained: int = 100
    """Titles whose words are classed for the page."""
    max_text_bytes: int = 16_384
    """UTF-8 bytes of a query or a title; models read a few hundred of them."""
    max_item_id_bytes: int = 512
    """UTF-8 bytes of an item id."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Bytes of a body as sent."""
    max_inflated_bytes: int = 8 * 1024 * 1024
    """Bytes of a body once inflated."""
    max_body_seconds: float = 10.0
    """From the first to the last byte of a body."""

    def __post_init__(self) -> None:
        _check_positive(self, "limits")


@dataclass(frozen=True)
class Batching:
    """How requests wait and share."""

    batch_tokens: int = 16_384
    """Of one turn of the model, a few of its batches; a newcomer waits for two turns at most."""
    queue_tokens: int = 300_000
    """That may wait; a request beyond is refused. About a second of work on two cores."""
    deadline_s: float = 5.0
    """From a request's arrival to its last score."""

    def __post_init__(self) -> None:
        _check_positive(self, "batching")


def _check_positive(settings: Limits | Batching, name: str) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not value > 0:
            raise ValueError(f"{name}.{field.name}: {value}; want more than 0")
