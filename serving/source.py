"""Where a scorer's checkpoint comes from, and whether the registry has moved on since."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from pathlib import Path

from relevance.checkpoints import check_checkpoint
from serving.metrics import ALIAS_CHANGED

LOG = logging.getLogger("querylift.source")

REGISTRY = "models:/"
_JITTER = 0.2
"""Share by which pauses differ, so that replicas that start together do not ask together."""


@dataclass(frozen=True)
class Source:
    """A checked checkpoint on disk. A scorer keeps it for its whole life."""

    uri: str
    """As given: a path, or ``models:/NAME@ALIAS``."""
    name: str
    """Of the registered model, or of the directory."""
    checkpoint: Path
    version: str = ""
    """Number in the registry; empty for a path."""
    alias: str = ""
    """That led to the version; empty where none did."""


def open_source(model: str, scratch: Path, *, tracking_uri: str = "") -> Source:
    """Find a checkpoint, fetch it where it is registered, and check every file.

    Args:
        model: Path, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        scratch: Directory to fetch into; it must last as long as the scorer.
        tracking_uri: MLflow server or database; empty takes ``MLFLOW_TRACKING_URI``.

    Raises:
        ValueError: A changed byte, a file that could hold code, or no such form of name.
        OSError: Nothing there, or MLflow cannot be reached.
    """
    if not model.startswith(REGISTRY):
        checkpoint = Path(model).resolve()
        check_checkpoint(checkpoint)
        return Source(model, checkpoint.name, checkpoint)
    from relevance import registry

    found = registry.resolve(model, tracking_uri=tracking_uri)
    checkpoint = registry.download(found.name, found.version, scratch, tracking_uri=tracking_uri)
    return Source(model, found.name, checkpoint, found.version, found.alias)


async def watch_alias(source: Source, *, every_s: float, tracking_uri: str = "") -> None:
    """Tell Prometheus whether the alias still points to the version loaded, until cancelled.

    The scorer goes on with what it loaded: whoever rolls out replaces it, a replica at a time.
    A registry that cannot be asked changes nothing.

    Args:
        source: Found through an alias.
        every_s: Mean pause between questions, in seconds.
        tracking_uri: As for ``open_source``.
    """
    from relevance.registry import alias_version

    said: object = source.version
    while True:
        await asyncio.sleep(every_s * random.uniform(1 - _JITTER, 1 + _JITTER))
        facts = {"alias": source.alias, "loaded": source.version}
        try:
            found = await asyncio.to_thread(
                alias_version, source.name, source.alias, tracking_uri=tracking_uri
            )
        # whatever MLflow's stores and their drivers raise: the next question may be answered
        except Exception as error:
            if said != "error":
                LOG.warning("the registry does not answer: %s", error, extra={"facts": facts})
            said = "error"
            continue
        ALIAS_CHANGED.set(found != source.version)
        if found != said:
            facts["found"] = found or "none"
            LOG.warning("the alias was looked up", extra={"facts": facts})
        said = found
