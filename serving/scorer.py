"""The scorer as a BentoML service: one checkpoint, loaded once, warm before it is ready.

BentoML's application runs in this process, without the supervisor of ``bentoml serve``; why is in
docs/decisions/0009-scorer-service.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

# before the import: it reports home otherwise, and wants the word
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import anyio.to_thread
import bentoml
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from relevance.cpus import available_cpus
from serving.answers import Answering, NotReady
from serving.api import application
from serving.caches import open_cache
from serving.limits import Batching, Limits
from serving.metrics import ALIAS_CHANGED, MODEL_INFO
from serving.servers import listening, log_as_json
from serving.source import Source, open_source, watch_alias

LOG = logging.getLogger("querylift.scorer")

_REQUEST_S = 30.0
"""To the first byte of an answer. The queue's own deadline is shorter; BentoML cannot do without
one, and keeps a timer for so long after every request."""
_KEEP_ALIVE_S = 75.0
"""Longer than load balancers keep idle connections, or they send into ones that we close."""
_CLOSE_S = 1
"""For the last answers to leave, once nothing is scored any more."""
_SWITCH_S = 0.0005
"""Until the event loop gets the interpreter from one that reads titles: Python's own 5 ms
would be waited for at every step of a request."""
_MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """How a scorer runs."""

    model: str
    """Path, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``."""
    items: Path | None = None
    """Item table, made for this checkpoint."""
    precision: str = "auto"
    """See ``relevance.scorer.open_scorer``."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one and logs it."""
    cache_mb: int = 256
    """Memory for scores of pairs, in MiB; 0 keeps none."""
    scores: Path | None = None
    """File of ``querylift cache build`` that this memory is filled from."""
    tracking_uri: str = ""
    """MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``."""
    poll_s: float = 20.0
    """Mean pause between questions to the registry for the alias."""
    drain_s: float = 20.0
    """That requests in flight may take after SIGTERM."""
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)


class Loaded(Answering, Protocol):
    """A checkpoint that can be let go of."""

    async def close(self) -> None:
        """Answer what waits, then free everything."""


Opener = Callable[[Settings, Source], Awaitable[Loaded]]


class Life:
    """A checkpoint from the start of its server to the end; also the ASGI application it serves."""

    def __init__(self, settings: Settings, source: Source, opener: Opener) -> None:
        self.error: Exception | None = None
        self._settings = settings
        self._source = source
        self._opener = opener
        self._api: ASGIApp = application(self.answering, settings.limits)
        self._loaded: Loaded | None = None
        self._in_flight = 0
        self._drained_by: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and know that it is being answered."""
        self._in_flight += 1
        try:
            await self._api(scope, receive, send)
        finally:
            self._in_flight -= 1

    def answering(self) -> Answering:
        """The loaded checkpoint.

        Raises:
            NotReady: It is being loaded, or the server drains.
        """
        if self._loaded is None or self.is_draining:
            raise NotReady
        return self._loaded

    @property
    def is_draining(self) -> bool:
        """Whether requests in flight are the last."""
        return self._drained_by is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to answer, or to wait for."""
        if self.error is not None:
            return True
        if self._drained_by is None:
            return False
        return self._in_flight == 0 or time.monotonic() > self._drained_by

    def drain(self) -> None:
        """Take nothing new."""
        self._drained_by = time.monotonic() + self._settings.drain_s

    async def run(self) -> None:
        """Load, then watch the alias, until cancelled; a failure is left in ``error``."""
        source, settings = self._source, self._settings
        started = time.monotonic()
        try:
            loaded = await self._opener(settings, source)
        except Exception as error:
            self.error = error
            return
        # what is loaded stays: looking through it for garbage would stop everything for .3 s
        gc.collect()
        gc.freeze()
        ALIAS_CHANGED.set(0)
        MODEL_INFO.labels(loaded.model, loaded.version, loaded.source).set(1)
        self._loaded = loaded
        facts = {
            "model": loaded.model,
            "version": loaded.version,
            "source": loaded.source,
            "registered_version": source.version,
            "seconds": round(time.monotonic() - started, 3),
        }
        LOG.info("ready", extra={"facts": facts})
        if source.alias:
            await watch_alias(source, every_s=settings.poll_s, tracking_uri=settings.tracking_uri)

    async def close(self) -> None:
        """Let go of the checkpoint."""
        if self._loaded is not None:
            await self._loaded.close()


def service(life: Life) -> bentoml.Service[Any]:
    """The BentoML service of one checkpoint.

    ``/livez``, ``/healthz`` and ``/readyz`` are BentoML's, everything else is ours: a method of
    BentoML's own would drop unknown fields silently and answer 400 to any mistake.
    """

    class Scorer:
        """Relevance of titles and items for a query."""

        @bentoml.on_startup  # type: ignore[untyped-decorator]
        async def load(self) -> None:
            """Begin to load; the server answers probes meanwhile."""
            threads = available_cpus() + 2
            # both pools have the host's processors for a measure otherwise
            executor = ThreadPoolExecutor(threads, thread_name_prefix="querylift")
            asyncio.get_running_loop().set_default_executor(executor)
            anyio.to_thread.current_default_thread_limiter().total_tokens = threads
            self._running = asyncio.create_task(life.run())

        @bentoml.on_shutdown  # type: ignore[untyped-decorator]
        async def close(self) -> None:
            """Stop watching, and let go of the model."""
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            await life.close()

        async def __is_ready__(self) -> bool:
            try:
                life.answering()
            except NotReady:
                return False
            return True

    made = bentoml.service(
        name="querylift_scorer",
        workers=1,
        traffic={"timeout": _REQUEST_S},
        # ours have what is asked of them, and its own would be one more of each
        logging={"access": {"enabled": False}},
        metrics={"enabled": False},
        # a fifth of the event loop's time for spans that nobody collects; ours passes the context
        tracing={"excluded_urls": [".*"]},
    )(Scorer)
    made.mount_asgi_app(life)
    return made


class _Server(uvicorn.Server):
    """uvicorn that drains: it would refuse new connections at once instead of answering 503."""

    def __init__(self, config: uvicorn.Config, life: Life) -> None:
        super().__init__(config)
        self._life = life

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal drain, on the second stop."""
        if self._life.is_draining:
            super().handle_exit(sig, frame)
        else:
            self._life.drain()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        return await super().on_tick(counter) or self._life.is_over


async def open_model(settings: Settings, source: Source) -> Loaded:
    """Load and warm the checkpoint of ``source``, with its caches."""
    # torch and its kin take seconds, in which probes are answered
    from serving.answering import open_answering

    return await open_answering(
        source.checkpoint,
        model=source.name,
        source=source.uri,
        items=settings.items,
        precision=settings.precision,
        cache=open_cache(settings.cache_mb * _MIB),
        scores=settings.scores,
        batching=settings.batching,
    )


def serve(settings: Settings, opener: Opener = open_model) -> None:
    """Serve a checkpoint until SIGTERM or SIGINT.

    Then new requests get 503 and those in flight are finished, for ``drain_s`` at most.

    Args:
        settings: How.
        opener: Loads and warms the checkpoint.

    Raises:
        ValueError: A changed byte, a file that could hold code, or tables that do not fit.
        OSError: No such checkpoint, a port that is taken, or MLflow cannot be reached.
    """
    log_as_json()
    sys.setswitchinterval(_SWITCH_S)
    with tempfile.TemporaryDirectory(prefix="querylift-") as scratch:
        # BentoML would make it in the home directory, which a container may not have
        os.environ.setdefault("BENTOML_HOME", str(Path(scratch) / "bentoml"))
        source = open_source(
            settings.model, Path(scratch) / "checkpoint", tracking_uri=settings.tracking_uri
        )
        # what asks the registry from here on asks again anyway, and must not hold up the end
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        life = Life(settings, source, opener)
        with listening(settings.host, settings.port) as listener:
            address = "{}:{}".format(*listener.getsockname())
            LOG.info("listening on http://%s", address)
            config = uvicorn.Config(
                service(life).to_asgi(is_main=False),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(_KEEP_ALIVE_S),
                timeout_graceful_shutdown=_CLOSE_S,
            )
            _Server(config, life).run(sockets=[listener])
        if life.error is not None:
            raise life.error
