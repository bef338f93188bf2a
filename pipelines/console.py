"""kfp's local runner as a person wants to see it: steps, times, and the steps' own lines."""

from __future__ import annotations

import importlib
import io
import re
import time
from collections.abc import Mapping
from typing import TextIO

from relevance.errors import Finding

_COLOUR = re.compile(r"\x1b\[\d*m")
_KFP = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - [A-Z]+ - (.*)")
_STARTED = re.compile(r"Executing task '([\w-]+)'")
_FINISHED = re.compile(r"Task '([\w-]+)' finished with status (SUCCESS|FAILURE)")
_EXECUTOR = "[KFP Executor "
_INPUT = "Got executor_input:"
_TRACEBACK = "Traceback (most recent call last):"
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
_BAR = re.compile(r"(.*)%\|.*\| (\d+)/\d+ ")
_TAIL = 200
"""Lines of a step that are kept for its error."""


class Console(io.TextIOBase):
    """Standard output for kfp's local runner: all of it to a log, the readable part to a screen.

    kfp tells nobody why a step failed: the exception is in what the step printed, and
    ``failure`` finds it there.
    """

    def __init__(self, log: TextIO, screen: TextIO, steps: Mapping[str, str]) -> None:
        """Take ``steps``: what to call each of kfp's tasks, in all as many as will run."""
        self._log = log
        self._screen = screen
        self._steps = steps
        self._partial = ""
        self._started = 0.0
        self._count = 0
        self._tail: list[str] = []
        self._is_input = False
        self._bar = ""
        self._is_bar = False
        self._is_traceback = False
        self._step = ""
        self._failed: tuple[str, list[str]] | None = None

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take what kfp prints."""
        self._partial += _COLOUR.sub("", text)
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            self._log.write(line + "\n")
            self._read(line.rstrip())
        if lines:
            self._log.flush()
        return len(text)

    def say(self, line: str, *, is_bar: bool = False) -> None:
        """Show ``line``; on a terminal, a progress bar gives way to what follows it."""
        if self._screen.isatty():
            start = "\r\x1b[K" if self._is_bar else ""
            self._screen.write(start + (line[:100] if is_bar else line + "\n"))
            self._is_bar = is_bar
        else:
            self._screen.write(line + "\n")
        self._screen.flush()

    def failure(self) -> tuple[str, Exception] | None:
        """The first step that failed, and its error as a caller in one process would see it.

        A bug, or a step that died without a word, is a ``RuntimeError``.
        """
        if self._failed is None:
            return None
        step, tail = self._failed
        return step, _exception(step, tail)

    def _read(self, line: str) -> None:
        message = _KFP.fullmatch(line)
        if message:
            self._read_kfp(message[1])
        elif self._step and line.startswith("    "):
            self._read_step(line[4:])

    def _read_kfp(self, message: str) -> None:
        if started := _STARTED.match(message):
            self._step = self._steps.get(started[1], started[1])
            self._started = time.monotonic()
            self._count += 1
            self._tail, self._is_input, self._is_traceback = [], False, False
            self.say(f"[{self._count}/{len(self._steps)}] {self._step}")
        elif finished := _FINISHED.match(message):
            is_success = finished[2] == "SUCCESS"
            seconds = time.monotonic() - self._started
            self.say(f"      {'done' if is_success else 'FAILED'} after {seconds:.1f} s")
            if not is_success and self._failed is None:
                self._failed = self._step, self._tail
            self._step = ""

    def _read_step(self, line: str) -> None:
        if line.startswith(_EXECUTOR):
            self._is_input = line.endswith(_INPUT)
            return
        if self._is_input:  # JSON over many lines, ending with the brace in the first column
            self._is_input = line != "}"
            return
        self._tail = [*self._tail[1 - _TAIL :], line]
        self._is_traceback |= line == _TRACEBACK
        if line.strip() and not self._is_traceback:
            self._show(line)

    def _show(self, line: str) -> None:
        bar = _BAR.match(line)
        if not bar:
            self.say(f"      {line}")
        # tqdm draws the empty bar at once, and the full one twice
        elif bar[2] != "0" and bar[0] != self._bar:
            self._bar = bar[0]
            self.say(f"      {line}", is_bar=True)


def _exception(step: str, tail: list[str]) -> Exception:
    starts = [number for number, line in enumerate(tail) if line == _TRACEBACK]
    if not starts:
        return RuntimeError(f"{step} died without an error: killed, or out of memory?")
    rest = iter(tail[starts[-1] + 1 :])
    # frames are indented, the exception is not
    last = next((line for line in rest if line and not line.startswith(" ")), "")
    found = _EXCEPTION.fullmatch(last)
    name, message = (found[1], found[2] or "") if found else ("", last)
    message = "\n".join([message, *rest]).strip()
    kind = _kind(name)
    for known in (Finding, ValueError):
        if issubclass(kind, known):
            return known(message)
    if issubclass(kind, OSError):
        return kind(message) if kind.__module__ == "builtins" else OSError(message)
    return RuntimeError(f"{step} failed: {name}: {message}")


def _kind(name: str) -> type[BaseException]:
    """The class that a traceback names."""
    module, _, last = name.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "builtins"), last, Exception)
    except ImportError:
        return Exception
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else Exception
