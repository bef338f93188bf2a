"""``querylift serve splitter`` and ``querylift ab shadow-report``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from abtest.shadow_report import ShadowReport

_LINES = 10_000
"""Of a log that are held at a time."""


def splitter(
    experiments: Annotated[
        Path, typer.Option(help="Experiment file; followed while it runs.", metavar="FILE")
    ],
    log: Annotated[
        Path, typer.Option(help="Directory of the event log; one process a log.", metavar="DIR")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all.", metavar="HOST")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65_535)] = 8080,
    unit_header: Annotated[
        str, typer.Option(help="Request header with the unit id.", metavar="NAME")
    ] = "x-client-id",
    unit_cookie: Annotated[
        str, typer.Option(help="Cookie with it, where the header is absent.", metavar="NAME")
    ] = "ql_client",
    deadline_ms: Annotated[
        float, typer.Option(help="Milliseconds that a request may take in all.", min=1)
    ] = 500.0,
    variant_share: Annotated[
        float,
        typer.Option(help="Of the deadline that a variant's scorer has; the champion the rest."),
    ] = 0.6,
    shadow_in_flight: Annotated[
        int, typer.Option(help="Copies to shadows at a time; more are dropped.", min=0)
    ] = 8,
    shadow_timeout_s: Annotated[
        float, typer.Option(help="Seconds that a copy may take.", min=0.01)
    ] = 2.0,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may send events. Repeatable.", metavar="ORIGIN"),
    ] = None,
    id_key_file: Annotated[
        Path | None,
        typer.Option(
            help="Key that ids are hashed with; default: the variable QUERYLIFT_ID_KEY.",
            metavar="FILE",
        ),
    ] = None,
    poll_s: Annotated[
        float, typer.Option(help="Seconds between looks at the experiment file.", min=0.05)
    ] = 1.0,
    drain_s: Annotated[
        float, typer.Option(help="Seconds to go on answering after SIGTERM.", min=0)
    ] = 5.0,
) -> None:
    """Split requests among scorers by experiment, and log who met which variant."""
    from serving.privacy import read_key
    from serving.shadowing import Shadowing
    from serving.splitter import Routing
    from serving.splitter_app import Settings, serve

    serve(
        Settings(
            experiments,
            log,
            read_key(id_key_file),
            host=host,
            port=port,
            allow_origin=tuple(allow_origin or ()),
            poll_s=poll_s,
            drain_s=drain_s,
            routing=Routing(unit_header, unit_cookie, deadline_ms / 1_000, variant_share),
            shadowing=Shadowing(shadow_timeout_s, shadow_in_flight),
        )
    )


def shadow_report(
    store: Annotated[
        Path | None, typer.Option(help="Store, as `events compact` makes it.", metavar="DIR")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Event log, for what is not in the store yet.", metavar="DIR"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON array and nothing else.")
    ] = False,
) -> None:
    """Compare shadows with the scorers that answered: order, scores, latency, failures."""
    from abtest.shadow_report import shadow_reports

    if store is None and log is None:
        raise ValueError("nothing to read; want --store DIR, --log DIR or both")
    reports = shadow_reports(_rows(store, log))
    if as_json:
        print(json.dumps([report._asdict() for report in reports], indent=2))
    elif reports:
        print("\n\n".join(map(_text, reports)))
    else:
        print("no copies")


def _rows(store: Path | None, log: Path | None) -> Iterator[dict[str, Any]]:
    """Shadow records; one that is in the log and in the store comes once."""
    import pyarrow.parquet as pq

    from abtest.record_tables import table_of
    from abtest.records import Shadow
    from serving.log_tail import Reader

    seen: set[str] = set()
    if log is not None:
        lines = (line.content for line in Reader(log).read() if line.kind == "shadow")
        while some := list(islice(lines, _LINES)):
            for row in table_of(some, Shadow).to_pylist():
                seen.add(row["shadow_id"])
                yield row
    if store is not None:
        if not store.is_dir():
            raise FileNotFoundError(f"{store}: no such directory")
        for file in sorted((store / "shadows").glob("date=*/*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches():
                yield from (row for row in batch.to_pylist() if row["shadow_id"] not in seen)


def _text(report: ShadowReport) -> str:
    failed = sum(report.failures.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.failures.items())
    lines = {
        "copies": f"{report.copies:,}",
        "failures": f"{failed:,} ({failed / report.copies:.1%})" + (f": {reasons}" * bool(failed)),
        "top 10 in both": _number(report.top_overlap, ".1%"),
        "Kendall's tau": _number(report.kendall, ".3f"),
        "Spearman's rho": _number(report.spearman, ".3f"),
        "mean difference": _number(report.mean_difference, "+.4f"),
        "mean absolute": _number(report.mean_abs_difference, ".4f"),
        "p50": f"{report.main_p50_ms:.1f} ms, shadow {report.shadow_p50_ms:.1f} ms",
        "p99": f"{report.main_p99_ms:.1f} ms, shadow {report.shadow_p99_ms:.1f} ms",
    }
    width = max(map(len, lines))
    head = f"{report.experiment_id}: {report.main_scorer} answered, {report.shadow_scorer} shadowed"
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in lines.items())])


def _number(value: float | None, spec: str) -> str:
    return "none" if value is None else format(value, spec)
