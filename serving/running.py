"""The experiment file in force: read again when it changes, in force at once or refused as a whole.

A new file is refused if it is invalid, or if ``abtest.findings.moves`` says that it would move
shoppers who have met a variant. Then the old one stays in force.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from abtest.assignment import Split
from abtest.experiment import Experiments, load_experiments
from abtest.findings import moves
from serving.upstreams import Upstream

LOG = logging.getLogger("querylift.splitter")


@dataclass(frozen=True)
class InForce:
    """What one request is answered by, from its beginning to its end."""

    experiments: Experiments
    split: Split
    upstreams: Mapping[str, Upstream]


class Running:
    """The file in force, and the one that was refused.

    Args:
        path: Of the experiment file.
        upstream: Makes a scorer of name and URL.

    Raises:
        ValueError: It is no valid experiment file.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, upstream: Callable[[str, str], Upstream]) -> None:
        self._path = path
        self._upstream = upstream
        self._stamp: tuple[int, ...] = _stamp(path)
        self._digest = _digest(path)
        self.refused: str | None = None
        """Why the file as it is now is not in force; None: it is."""
        self.now: InForce = self._made(load_experiments(path), {})

    async def watch(self, every_s: float) -> None:
        """Follow the file and the clock, until cancelled."""
        while True:
            until = self.now.split.until
            left = (until - datetime.now(UTC)).total_seconds() if until else every_s
            await asyncio.sleep(min(max(left, 0.001), every_s))
            if until and datetime.now(UTC) >= until:
                self.now = self._made(self.now.experiments, self.now.upstreams)
                LOG.info("a step of an experiment", extra={"facts": {"at": until.isoformat()}})
            await self.look()

    async def look(self) -> None:
        """Read the file if it changed."""
        try:
            await asyncio.to_thread(self._read)
        except (ValueError, OSError) as error:
            if str(error) != self.refused:
                LOG.error("refused", extra={"facts": {"reason": str(error)}})
            self.refused = str(error)

    def _read(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        # what is refused is not read again until it changes
        self._stamp = stamp
        digest = _digest(self._path)
        if digest != self._digest:
            experiments = load_experiments(self._path)
            found = moves(experiments, self.now.experiments, datetime.now(UTC))
            if found:
                raise ValueError(f"{self._path}: " + "; ".join(map(str, found)))
            self.now = self._made(experiments, self.now.upstreams)
            self._digest = digest
            LOG.info("in force", extra={"facts": {"config_version": experiments.version}})
        self.refused = None

    def _made(self, experiments: Experiments, kept: Mapping[str, Upstream]) -> InForce:
        upstreams = {}
        for name, scorer in experiments.scorers.items():
            old = kept.get(name)
            # what a breaker has learnt of a scorer is kept
            same = old is not None and old.url == scorer.url.rstrip("/")
            upstreams[name] = old if old and same else self._upstream(name, scorer.url)
        return InForce(experiments, Split.of(experiments, datetime.now(UTC)), upstreams)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file; nothing where there is none, and reading it says so."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
