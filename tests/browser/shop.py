"""A shop's pages on a real port, with a collector that remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from abtest.event_door import Door, Refused, decode_events

SNIPPET = Path(__file__).resolve().parents[2] / "serving" / "static" / "ubi.js"
STYLE = "li { height: 200px } .far { margin-top: 3000px } body { margin: 0 }"
CORS = {
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "content-type",
    "access-control-max-age": "600",
}
# nothing inline, nothing evaluated; the other name of this host is for the cross-origin test
POLICY = "default-src 'self'; connect-src 'self' http://localhost:*"


@dataclass
class Shop:
    """What is served under one address, how events are answered, and which came."""

    url: str
    pages: dict[str, str] = field(default_factory=dict)
    refuse_with: tuple[int, Mapping[str, str]] | None = None
    """Status and headers of the answer to events, in place of taking them."""
    preflight_s: float = 0
    """How long it takes to tell another origin what it may send."""
    bodies: list[bytes] = field(default_factory=list)
    """Of all requests with events, refused ones too."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Taken."""
    bad: list[Refused] = field(default_factory=list)
    """What the real door does not let in."""

    def page(
        self, name: str, body: str, head: str = "", *, script: bool = True, **data: str
    ) -> str:
        """Publish a page; gives its address."""
        settings = {"endpoint": "v1/events", "application": "shop", "consent": "granted"} | data
        attributes = " ".join(f'data-{k.replace("_", "-")}="{v}"' for k, v in settings.items())
        tag = f'<script src="ubi.js" {attributes} defer></script>' if script else ""
        self.pages[name] = (
            f'<!doctype html><link rel="stylesheet" href="style.css">{head}{tag}{body}'
        )
        return f"{self.url}/{name}"

    def of(self, action: str) -> list[dict[str, Any]]:
        """The taken events of an action."""
        return [event for event in self.events if event["action_name"] == action]

    async def _page(self, request: Request) -> Response:
        page = self.pages.get(request.path_params["name"])
        headers = {"content-security-policy": POLICY}
        return HTMLResponse(page, headers=headers) if page else Response(status_code=404)

    async def _take(self, request: Request) -> Response:
        headers = CORS | {"access-control-allow-origin": request.headers.get("origin", "*")}
        if request.method == "OPTIONS":
            await asyncio.sleep(self.preflight_s)
            return Response(status_code=204, headers=headers)
        assert request.headers["content-type"] == "application/json"
        body = await request.body()
        self.bodies.append(body)
        if self.refuse_with:
            status, more = self.refuse_with
            return Response("not now", status, {**headers, **more})
        sent = json.loads(body)
        kept = decode_events(body, datetime.now(UTC), Door())
        refused = [each for each in kept if isinstance(each, Refused)]
        bad = {each.index for each in refused}
        self.bad += refused
        self.events += [event for index, event in enumerate(sent) if index not in bad]
        answer = {
            "accepted": len(sent) - len(bad),
            "refused": [{"index": each.index, "error": each.error} for each in refused],
        }
        status = 422 if len(bad) == len(sent) else 200
        return JSONResponse(answer, status, headers=headers)

    def routes(self) -> list[Route]:
        def static(text: str, kind: str) -> Callable[[Request], Response]:
            return lambda _: Response(text, media_type=kind)

        return [
            Route("/ubi.js", static(SNIPPET.read_text(), "text/javascript")),
            Route("/style.css", static(STYLE, "text/css")),
            Route("/v1/events", self._take, methods=["POST", "OPTIONS"]),
            Route("/{name}", self._page),
        ]


@contextmanager
def serving_shops() -> Iterator[Callable[[], Shop]]:
    """A server to open shops on. None hears what a page of an earlier one still sends."""
    app = Starlette()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]

    def open_shop() -> Shop:
        path = f"/{len(app.routes)}"
        shop = Shop(f"http://127.0.0.1:{port}{path}")
        app.routes.append(Mount(path, routes=shop.routes()))
        return shop

    yield open_shop
    server.should_exit = True
    thread.join()


def until(fact: Callable[[], object], patience_s: float = 20) -> None:
    """Wait for a fact, which nearly always takes milliseconds."""
    deadline = time.monotonic() + patience_s
    while not fact():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def results(items: str = "A1 A2", query_id: str = "q-1", user_query: str = "velvet sofa") -> str:
    """A list of results, each with a link to its page."""
    rows = "".join(
        f'<li data-ql-item-id="{item}" data-ql-position="{position}" id="{item}">'
        f'<a href="item">{item}</a></li>'
        for position, item in enumerate(items.split(), start=1)
    )
    return f'<ol data-ql-query-id="{query_id}" data-ql-user-query="{user_query}">{rows}</ol>'
