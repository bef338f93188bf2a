"""Reading a log that is being written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from serving import segments
from serving.segments import Line, read_line


class Reader:
    """Reads a log from its beginning, and later what was appended since."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._number = 0
        """Of the segment that was read last."""
        self._byte = 0
        """Of it, up to which it was read."""

    def read(self) -> Iterator[Line]:
        """Good lines that were not read yet; one that is half written is left for later."""
        # a segment with another after it in this list is complete
        for segment in segments.segments(self._spool):
            if segment.number < self._number:
                continue
            if segment.number > self._number:
                self._number, self._byte = segment.number, 0
            try:
                file = segment.path.open("rb")
            except FileNotFoundError:
                # closed under another name meanwhile, or shipped
                yield from self.read()
                return
            with file:
                file.seek(self._byte)
                for content in file:
                    if not content.endswith(b"\n"):
                        break
                    self._byte += len(content)
                    if (line := read_line(content[:-1])) is not None:
                        yield line


def shown(line: Line) -> str:
    """A record for people: when, what, who, about which query."""
    facts = msgspec.json.decode(line.content)
    what = facts.get("action_name") or facts.get("query_attributes", {}).get("answered_by") or "-"
    who, query = facts.get("client_id", "-"), facts.get("user_query") or facts.get("query_id", "-")
    return f"{facts['timestamp']:<27}  {line.kind:<6}  {what:<16}  {who:<32}  {query}"
