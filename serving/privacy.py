"""What is done to personal data before anything is written: ids are hashed, texts redacted."""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

import msgspec

from abtest.records import Event
from relevance.data import pii

KEY_VARIABLE = "QUERYLIFT_ID_KEY"
_MIN_KEY, _MAX_KEY = 16, 64
_ID_BYTES = 16

_MAY_BE_PERSONAL = re.compile("[0-9@:]")
"""What every pattern of ``relevance.data.pii`` needs; most texts have none of them."""


def read_key(file: Path | None = None) -> bytes:
    """The key that ids are hashed with: from a file, else the variable ``QUERYLIFT_ID_KEY``.

    Raises:
        ValueError: There is none, or it is too short or too long; the message does not show it.
    """
    if file is not None:
        source, key = str(file), file.read_bytes().strip()
    else:
        source, key = KEY_VARIABLE, os.environ.get(KEY_VARIABLE, "").strip().encode()
    if not _MIN_KEY <= len(key) <= _MAX_KEY:
        raise ValueError(
            f"{source}: a key of {len(key)} bytes; want {_MIN_KEY} to {_MAX_KEY} random bytes, "
            "for example from `openssl rand -hex 32`"
        )
    return key


def hashed(unit_id: str, key: bytes) -> str:
    """An id of a person as it is kept: BLAKE2b under a key, 128 bits in hex.

    Without the key nobody can tell whose it is, not even by trying all ids there are.

    >>> hashed("shopper-1", b"0123456789abcdef")
    'db32d3eb376182b093a1f84f7fda5085'
    """
    return hashlib.blake2b(unit_id.encode(), digest_size=_ID_BYTES, key=key).hexdigest()


# a query comes with each of the items that it shows
@lru_cache(maxsize=1_024)
def redacted(text: str) -> str:
    """A text as it is kept: e-mail addresses, cards, phones and IP addresses only named."""
    return pii.mask(text) if _MAY_BE_PERSONAL.search(text) else text


def private(event: Event, key: bytes) -> Event:
    """An event as it is kept."""
    return msgspec.structs.replace(
        event,
        client_id=event.client_id and hashed(event.client_id, key),
        user_id=event.user_id and hashed(event.user_id, key),
        session_id=event.session_id and hashed(event.session_id, key),
        user_query=event.user_query and redacted(event.user_query),
        message=event.message and redacted(event.message),
    )
