"""The splitter as an ASGI application and as a server: routes, start, end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import FrameType

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abtest.experiment import load_experiments
from serving.bodies import JSON
from serving.breaker import Breaking
from serving.collector import Collector
from serving.event_log import EventLog, Spool
from serving.logs import Observed
from serving.pages import html_page
from serving.running import Running
from serving.servers import listening, log_as_json
from serving.shadowing import Shadowing, Shadows
from serving.splitter import PATHS, Routing, Splitter
from serving.status_page import Exposition, status
from serving.traffic import Traffic
from serving.upstreams import Upstream, client

LOG = logging.getLogger("querylift.splitter")

_KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections, or they send into ones that we close."""
_CLOSE_S = 5
"""For requests in flight, once nothing new is taken; they have a shorter deadline."""


@dataclass(frozen=True)
class Settings:
    """How a splitter runs."""

    experiments: Path
    """Experiment file, followed while it runs."""
    log: Path
    """Directory of the event log; one process a log."""
    key: bytes = field(repr=False)
    """That ids are hashed with; see ``serving.privacy.read_key``."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes a free one and logs it."""
    allow_origin: tuple[str, ...] = ()
    """Origins of pages that may send events from elsewhere, such as https://shop.example."""
    poll_s: float = 1.0
    """Between looks at the experiment file."""
    drain_s: float = 5.0
    """Between SIGTERM and the end: load balancers stop sending, we go on answering."""
    spool: Spool = field(default_factory=Spool)
    routing: Routing = field(default_factory=Routing)
    breaking: Breaking = field(default_factory=Breaking)
    shadowing: Shadowing = field(default_factory=Shadowing)


class Life:
    """A splitter from the start of its server to the end."""

    def __init__(self) -> None:
        self._end: float | None = None

    @property
    def is_draining(self) -> bool:
        """Whether load balancers shall stop sending."""
        return self._end is not None

    @property
    def is_over(self) -> bool:
        """Whether to stop."""
        return self._end is not None and time.monotonic() >= self._end

    def drain(self, seconds: float) -> None:
        """Go on for so long."""
        self._end = time.monotonic() + seconds


def application(settings: Settings, log: EventLog, life: Life | None = None) -> Starlette:
    """The splitter.

    Args:
        settings: Whose experiment file is read when the server starts.
        log: Open, and of this process alone.
        life: Says when the server drains.
    """
    parts = _Parts(settings, log, life or Life())
    routes = [
        *(Route(path, parts.post, methods=["POST"]) for path in PATHS),
        Route(
            "/v1/events",
            parts.events,
            methods=["POST", "OPTIONS"],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=settings.allow_origin,
                    allow_methods=["POST"],
                    allow_headers=["content-type"],
                    expose_headers=["retry-after"],
                    # beacons come with credentials whether one wants them or not
                    allow_credentials=True,
                    max_age=86_400,
                )
            ],
        ),
        Route("/ubi.js", parts.snippet),
        Route("/v1/status", parts.status),
        Route("/livez", parts.livez),
        Route("/readyz", parts.readyz),
        Route("/metrics", parts.metrics),
        Route("/", parts.page),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Observed, paths={route.path for route in routes})],
        lifespan=parts.lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Parts:
    """What lives as long as the server."""

    def __init__(self, settings: Settings, log: EventLog, life: Life) -> None:
        self._settings = settings
        self._log = log
        self._life = life
        self._page = html_page("splitter.html")
        snippet = files("serving").joinpath("static/ubi.js").read_bytes()
        headers = {"cache-control": "max-age=3600", "x-content-type-options": "nosniff"}
        self._snippet = Response(snippet, headers=headers, media_type="text/javascript")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Open, serve, close."""
        settings = self._settings
        async with client() as session, client() as shadow_session:

            def upstream(name: str, url: str) -> Upstream:
                return Upstream(name, url, session, settings.breaking)

            self._running = Running(settings.experiments, upstream)
            self._traffic = Traffic()
            shadows = Shadows(shadow_session, self._log, self._traffic, settings.shadowing)
            self._collector = Collector(self._log, settings.key)
            self._splitter = Splitter(
                self._running, self._log, settings.key, self._traffic, shadows, settings.routing
            )
            self._exposition = Exposition(self._running, self._traffic, self._log, self._collector)
            following = asyncio.create_task(self._running.watch(settings.poll_s))
            try:
                yield
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                await shadows.close()

    async def post(self, request: Request) -> Response:
        """Rerank or relevance."""
        return await self._splitter.post(request)

    async def events(self, request: Request) -> Response:
        """Events of a browser."""
        return await self._collector.post(request)

    async def status(self, request: Request) -> Response:
        """What the page shows."""
        now = status(self._running, self._traffic, self._log, self._collector)
        return Response(
            msgspec.json.encode(now), headers={"cache-control": "no-store"}, media_type=JSON
        )

    async def livez(self, request: Request) -> Response:
        """Whether the process answers."""
        return _answered("ok")

    async def readyz(self, request: Request) -> Response:
        """Whether to send requests here."""
        # scorers have no part in it: without them shoppers still get an order
        if self._life.is_draining:
            return _answered("draining", 503)
        return _answered("ok")

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self._exposition.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def snippet(self, request: Request) -> Response:
        """What shop pages load to send events."""
        return self._snippet

    async def page(self, request: Request) -> Response:
        """For people."""
        return self._page


def _answered(state: str, code: int = 200) -> Response:
    return Response(msgspec.json.encode({"status": state}), code, media_type=JSON)


class _Server(uvicorn.Server):
    """uvicorn that goes on answering for a while after SIGTERM."""

    def __init__(self, config: uvicorn.Config, life: Life, drain_s: float) -> None:
        super().__init__(config)
        self._life = life
        self._drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first SIGTERM drain; on a second, and on Ctrl + C, stop."""
        if sig == signal.SIGTERM and not self._life.is_draining:
            self._life.drain(self._drain_s)
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        return await super().on_tick(counter) or self._life.is_over


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ValueError: The experiment file is invalid.
        OSError: The file or the log cannot be opened, or the port is taken.
    """
    log_as_json()
    load_experiments(settings.experiments)  # so that a mistake is one line, and no log is begun
    life = Life()
    with (
        listening(settings.host, settings.port) as listener,
        contextlib.closing(EventLog.open(settings.log, settings.spool)) as log,
    ):
        LOG.info("listening on http://%s", "{}:{}".format(*listener.getsockname()))
        config = uvicorn.Config(
            application(settings, log, life),
            loop="uvloop",
            http="httptools",
            proxy_headers=False,  # whom a proxy speaks for is nothing that we use
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_CLOSE_S,
        )
        # what is imported stays; looking through it for garbage halts every request for 60 ms
        gc.freeze()
        _Server(config, life, settings.drain_s).run(sockets=[listener])
