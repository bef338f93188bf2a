"""Scorers as the splitter sees them: a URL that answers in time, correctly, or not at all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import aiohttp

from serving.asked import Garbage, Ranked
from serving.breaker import Breaker, Breaking

Failure = Literal["timeout", "unreachable", "status", "overloaded", "garbage", "breaker_open"]
REQUEST_IS_WRONG = (400, 413, 415, 422)
"""Statuses that judge the request and not the scorer: every scorer would say the same."""

_MAX_ANSWER_BYTES = 32 * 2**20
"""Four times the largest request, which an answer may echo."""
_KEEP_ALIVE_S = 15.0
"""Shorter than scorers keep idle connections, or we send into ones that they close."""
_VERSION = re.compile(r"[!-~]{1,128}")


class Failed(Exception):
    """A scorer gave no answer that could be passed on."""

    def __init__(self, failure: Failure, detail: str = "") -> None:
        super().__init__(f"{failure} {detail}".strip())
        self.failure = failure


class Reply(NamedTuple):
    """A scorer's answer, to be passed on untouched."""

    status: int
    """200, or one of ``REQUEST_IS_WRONG``."""
    content_type: str
    content: bytes
    model_version: str
    """As the scorer says; empty if it does not."""
    ranked: Ranked | None
    """None where the request is wrong."""
    seconds: float


@dataclass(frozen=True)
class Question:
    """A request on its way to scorers."""

    path: str
    content: bytes
    headers: Mapping[str, str]
    answer_type: str
    """Media type that the answer must have."""
    read: Callable[[bytes], Ranked]
    """Raises ``Garbage`` if the answer is none to this question."""


def client() -> aiohttp.ClientSession:
    """Connections to scorers; needs a running loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the caller has a deadline
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


class Upstream:
    """One scorer.

    Args:
        name: As the experiment file has it.
        url: Without a path.
        session: Connections; shared among scorers.
        breaking: When it is left alone; None never leaves it alone.
    """

    def __init__(
        self,
        name: str,
        url: str,
        session: aiohttp.ClientSession,
        breaking: Breaking | None,
    ) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self.breaker = Breaker(breaking) if breaking else None
        self._session = session

    async def ask(self, question: Question, seconds: float) -> Reply:
        """Ask, and wait for so long at most.

        Raises:
            Failed: No connection, no answer in time, a status that says nothing of the request, or
                an answer that is none to the question.
        """
        breaker = self.breaker
        if breaker is not None and not breaker.admits():
            raise Failed("breaker_open")
        is_failure = True
        try:
            reply = await self._asked(question, seconds)
            is_failure = False
            return reply
        finally:
            if breaker is not None:
                breaker.record(is_failure=is_failure)

    async def _asked(self, question: Question, seconds: float) -> Reply:
        start = time.perf_counter()
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.post(
                    self.url + question.path,
                    data=question.content,
                    headers=question.headers,
                    allow_redirects=False,
                ) as response,
            ):
                content = await _content(response)
        except TimeoutError:
            raise Failed("timeout", f"after {seconds:.3f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Failed("unreachable", str(error)[:200]) from None
        status, content_type = response.status, response.headers.get("content-type", "")
        if status != 200 and status not in REQUEST_IS_WRONG:
            raise Failed("overloaded" if status in (429, 503) else "status", str(status))
        version = response.headers.get("x-model-version", "")
        ranked = _ranked(question, content_type, content) if status == 200 else None
        return Reply(
            status,
            content_type,
            content,
            version if _VERSION.fullmatch(version) else "",
            ranked,
            time.perf_counter() - start,
        )


def _ranked(question: Question, content_type: str, content: bytes) -> Ranked:
    if content_type.partition(";")[0].strip().lower() != question.answer_type:
        raise Failed("garbage", f"Content-Type {content_type[:80]!r}; want {question.answer_type}")
    try:
        return question.read(content)
    except Garbage as error:
        raise Failed("garbage", str(error)) from None


async def _content(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > _MAX_ANSWER_BYTES:
            raise Failed("garbage", f"more than {_MAX_ANSWER_BYTES:,} bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
