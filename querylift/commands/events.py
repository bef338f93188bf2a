"""``querylift events``."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from relevance.errors import Finding

_POLL_S = 0.2

Log = Annotated[
    Path, typer.Option(help="Directory of the event log, as a splitter writes it.", metavar="DIR")
]
StoreUrl = Annotated[
    str, typer.Option("--store", help="Directory or URL of the Parquet files.", metavar="URL")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def tail(
    log: Log,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is appended from now on.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="Last records to begin with.", min=0)
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each record whole, as a line of JSON.")
    ] = False,
) -> None:
    """Print the records of a log that are not shipped yet, latest last."""
    from collections import deque

    from serving.log_tail import Reader, shown

    _check_log(log)
    reader = Reader(log)
    records = deque(reader.read(), maxlen=lines)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for line in records:
                print(line.content.decode() if as_json else shown(line))
            if not follow:
                return
            sys.stdout.flush()
            time.sleep(_POLL_S)
            records = deque(reader.read())


def compact(log: Log, store: StoreUrl, as_json: AsJson = False) -> None:
    """Ship the log's closed segments to Parquet files by date, each record exactly once."""
    from serving.log_store import Store
    from serving.shipping import compact as compact_

    _check_log(log)
    with _segment_bar() as advance:
        done = compact_(log, Store(store), advance)
    _print(done, as_json=as_json)
    if done.damaged:
        raise Finding(f"{done.damaged:,} lines could not be read; their segments are *.damaged")


def verify(log: Log, store: StoreUrl, as_json: AsJson = False) -> None:
    """Prove that every record of the log is there, whole and once."""
    import msgspec

    from serving.log_proof import verify as verify_
    from serving.log_store import Store

    _check_log(log)
    findings = verify_(log, Store(store))
    if as_json:
        print(msgspec.json.encode({"findings": findings}).decode())
    for finding in () if as_json else findings:
        print(finding)
    if findings:
        raise Finding(f"{len(findings):,} findings, the first: {findings[0]}")
    if not as_json:
        print("every record is there, whole and once")


def forget(
    log: Log,
    store: StoreUrl,
    ids: Annotated[
        Path,
        typer.Option(
            help="File of client, user or session ids as clients send them, one a line.",
            metavar="FILE",
        ),
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            help="File of the key that ids are hashed with; default: QUERYLIFT_ID_KEY.",
            metavar="FILE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take every record of some people out of the store, and prove that none is left."""
    from serving.erasure import forget as forget_
    from serving.log_store import Store
    from serving.privacy import read_key

    _check_log(log)
    people = [line for line in ids.read_text(encoding="utf-8").splitlines() if line]
    if not people:
        raise ValueError(f"{ids}: no ids; want one a line")
    erased = forget_(log, Store(store), people, read_key(key))
    _print(erased, as_json=as_json)
    if erased.left or erased.in_log:
        raise Finding(
            f"{erased.left:,} records are left in the store and {erased.in_log:,} in the log; run "
            "it again once the segment that is being written is closed, and see to damaged ones"
        )


def retain(
    store: StoreUrl,
    days: Annotated[int, typer.Option(help="Days to keep, today in UTC included.", min=1)],
    as_json: AsJson = False,
) -> None:
    """Remove the days of the store that are older than the last so many."""
    from datetime import UTC, datetime

    from serving.erasure import retain as retain_
    from serving.log_store import Store

    _print(retain_(Store(store), days, datetime.now(UTC).date()), as_json=as_json)


def _check_log(log: Path) -> None:
    """Raise unless a directory is a log: a misspelled one must not become an empty log."""
    if not (log / "writer").is_file():
        raise FileNotFoundError(f"{log}: no event log; want a directory that a splitter writes")


def _print(done: object, *, as_json: bool) -> None:
    import msgspec

    facts = msgspec.to_builtins(done)
    if as_json:
        print(msgspec.json.encode(facts).decode())
        return
    for file, change in facts.pop("files").items() if isinstance(facts["files"], dict) else ():
        print(f"{file}: {change['before']:,} rows, now {change['after']:,}")
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}  {value:>12,}")


@contextlib.contextmanager
def _segment_bar() -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc="compact", unit=" segments", delay=0.5) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
