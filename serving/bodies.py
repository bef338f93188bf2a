"""From the bytes of a request to a checked body, and back.

Nothing that a client sends takes more memory than ``Limits`` allows: bodies are counted while they
arrive and while they inflate.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request

from serving.limits import Limits
from serving.refusals import Refusal

JSON = "application/json"
MSGPACK = "application/msgpack"
ARROW = "application/vnd.apache.arrow.stream"

T = TypeVar("T")

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_HALF_A_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


class ClientGone(Exception):
    """The client hung up before it had sent its body, or before it had its answer."""


@dataclass(frozen=True)
class Body:
    """A request's body, inflated."""

    content: bytes
    media_type: str


async def read_body(request: Request, limits: Limits, media_types: Sequence[str]) -> Body:
    """Read and inflate a body.

    Args:
        request: Of which nothing was read yet.
        limits: Of its size and its time.
        media_types: Those that the endpoint takes.

    Raises:
        Refusal: 415, 413, 408, or 400 if it does not inflate.
        ClientGone: The client hung up.
    """
    media_type = _media_type(request, media_types)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", *_WINDOW_BITS):
        message = f"Content-Encoding: {encoding[:40]}; want gzip, deflate or none"
        raise Refusal(415, "content_encoding", message)
    try:
        async with asyncio.timeout(limits.max_body_seconds):
            content = await _received(request, limits)
    except TimeoutError:
        message = f"the body took more than {limits.max_body_seconds:g} s"
        raise Refusal(408, "slow_body", message) from None
    if encoding in _WINDOW_BITS:
        content = _inflated(content, encoding, limits.max_inflated_bytes)
    return Body(content, media_type)


def _media_type(request: Request, wanted: Sequence[str]) -> str:
    given = request.headers.get("content-type", "")
    media_type, _, parameters = given.partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if media_type not in wanted or charset not in ("", "charset=utf-8"):
        message = f"Content-Type: {given[:80] or 'none'}; want {' or '.join(wanted)}"
        raise Refusal(415, "content_type", message)
    return media_type


async def _received(request: Request, limits: Limits) -> bytes:
    too_large = Refusal(
        413, "body_bytes", f"the body has more than {limits.max_body_bytes:,} bytes"
    )
    declared = request.headers.get("content-length", "")
    # the server has checked that it is a number; what is declared too large is not read
    if declared.isdecimal() and int(declared[:20]) > limits.max_body_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limits.max_body_bytes:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(chunks)


def _inflated(content: bytes, encoding: str, most: int) -> bytes:
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        inflated = inflater.decompress(content, most + 1)
    except zlib.error as error:
        raise Refusal(400, "inflate", f"the body is no {encoding}: {error}") from None
    if len(inflated) > most:
        raise Refusal(413, "inflated_bytes", f"the body inflates to more than {most:,} bytes")
    if not inflater.eof or inflater.unused_data:
        raise Refusal(400, "inflate", f"the body is no {encoding}: it ends too soon or too late")
    return inflated


def decoded(content: bytes, media_type: str, kind: type[T]) -> T:
    """A body in ``kind``'s shape.

    Args:
        content: JSON or msgpack.
        media_type: Which of them.
        kind: One of ``serving.schemas``.

    Raises:
        Refusal: 400 if it cannot be read, 422 if it is of another shape.
    """
    try:
        if media_type == MSGPACK:
            return msgspec.msgpack.decode(content, type=kind)
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(422, "shape", f"{error}{_fields(error, kind)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        name = "msgpack" if media_type == MSGPACK else "JSON"
        raise Refusal(400, "syntax", f"the body is no {name}: {_cause(error, content)}") from None


def _fields(error: msgspec.ValidationError, kind: type) -> str:
    if "unknown field" not in str(error) or "$." in str(error):
        return ""
    return f"; want {', '.join(field.encode_name for field in msgspec.structs.fields(kind))}"


def _cause(error: Exception, content: bytes) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"a text is not UTF-8 ({error.reason})"
    if _HALF_A_PAIR.search(content):
        return "a text has half of a surrogate pair"
    return str(error)


class _Shape(msgspec.Struct):
    texts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def is_tei(content: bytes) -> bool:
    """Whether a rerank body is in text-embeddings-inference's shape: it has ``texts``.

    Of a body that cannot be read it is a guess, for the error alone.
    """
    try:
        return msgspec.json.decode(content, type=_Shape).texts is not msgspec.UNSET
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b'"texts"' in content


def accepted(request: Request, media_types: Sequence[str], otherwise: str) -> str:
    """The media type to answer in: the first of ``Accept`` that is offered, else ``otherwise``."""
    for choice in request.headers.get("accept", "").split(","):
        media_type = choice.partition(";")[0].strip().lower()
        if media_type in media_types:
            return media_type
    return otherwise


def encoded(body: object, media_type: str) -> bytes:
    """``body`` in JSON or msgpack."""
    if media_type == MSGPACK:
        return msgspec.msgpack.encode(body)
    return msgspec.json.encode(body)
