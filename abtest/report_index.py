"""All reports of a directory as a small site: read-only, and for this computer alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from abtest import report_parts as parts
from abtest import report_words as words
from abtest.markup import Markup, markup, tag
from abtest.report_words import Word
from abtest.result import Result, read_result


class Kind(NamedTuple):
    """One of a report's files."""

    label: str
    media_type: str


KINDS = {
    ".html": Kind("Report", "text/html"),
    ".json": Kind("JSON", "application/json"),
    ".csv": Kind("CSV", "text/csv"),
    ".md": Kind("Markdown", "text/markdown"),
}
"""By ending."""

_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Report(NamedTuple):
    """A report in a directory."""

    name: str
    """Of its files, without their endings."""
    result: Result | None
    fault: str
    """Why there is no result."""
    endings: tuple[str, ...]
    """Of its files that are there."""


def application(directory: Path) -> Starlette:
    """The site. Another host's name is refused, so that no web page can read it.

    Raises:
        NotADirectoryError: There is no such directory.
    """
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: no directory; want one that `ab report` wrote")

    # plain functions run in threads: reading files keeps nobody waiting
    def index(request: Request) -> Response:
        return HTMLResponse(index_page(reports(directory)), headers=_HEADERS)

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in {f"{it.stem}{ending}" for it in _results(directory) for ending in KINDS}:
            raise HTTPException(404)
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type=KINDS[path.suffix].media_type, headers=_HEADERS)

    return Starlette(
        routes=[Route("/", index), Route("/{name}", file)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


def reports(directory: Path) -> list[Report]:
    """What is in a directory: the latest first, files that are no result last."""

    def made(report: Report) -> float:
        return report.result.provenance.made_at.timestamp() if report.result else 0.0

    return sorted(map(_read, _results(directory)), key=made, reverse=True)


def index_page(found: list[Report]) -> str:
    """HTML of a list of reports, by experiment."""
    by_name: dict[str, list[Report]] = {}
    for it in found:
        by_name.setdefault(it.result.subject.name if it.result else it.name, []).append(it)
    empty = tag("p", "No report is here yet: `querylift ab report` writes them.")
    return parts.document(
        "Experiments",
        tag(
            "header",
            tag("h1", "Experiments"),
            tag("p", f"{len(by_name)} here, the latest first", class_="faint"),
        ),
        *(_experiment(name, its) for name, its in by_name.items()),
        empty if not found else markup(),
    )


def _results(directory: Path) -> list[Path]:
    found = sorted(directory.glob("*.json"))
    return [path for path in found if not path.name.startswith(".") and not path.is_symlink()]


def _read(path: Path) -> Report:
    endings = tuple(it for it in KINDS if path.with_name(f"{path.stem}{it}").is_file())
    try:
        return Report(path.stem, read_result(path), "", endings)
    except (ValueError, OSError) as error:
        return Report(path.stem, None, str(error), endings)


def _experiment(name: str, found: list[Report]) -> Markup:
    return tag("section", tag("h2", name), *map(_report, found))


def _report(report: Report) -> Markup:
    if report.result is None:
        light = parts.light(Word("bad", "Cannot be read"))
        return tag("article", light, tag("p", report.fault), class_="card")
    tone, word, _, sentence = words.decided(report.result)
    links = [
        tag("a", KINDS[ending].label, href=f"./{quote(report.name)}{ending}")
        for ending in report.endings
    ]
    made = words.instant(report.result.provenance.made_at)
    return tag(
        "article",
        parts.light(Word(tone, word)),
        tag("p", sentence),
        tag("p", " · ".join([*words.heading(report.result), f"made {made}"]), class_="faint"),
        tag("p", *links, class_="links"),
        class_="card",
    )
