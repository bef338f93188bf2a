"""Steps that are made once: by whoever comes first, of all processes that share a directory.

A step's place appears whole or not at all, and is taken as it is from then on.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 1.0

Say = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True)
class Step:
    """Something to make once."""

    name: str
    place: Path
    """What appears whole when it is made; its name tells it from every other step."""
    inputs: tuple[Step, ...]
    make: Callable[[], None]

    @property
    def result(self) -> Path:
        """What a training step made, in its place beside ``step.json``."""
        return self.place / "result"


def make_all(steps: Sequence[Step], locks: Path, say: Say) -> None:
    """Make every step that is not there, each once, whoever else works in the same directory.

    A step that another process is making is left to it; others are made meanwhile.
    """
    distinct = {step.place: step for step in steps}
    locks.mkdir(parents=True, exist_ok=True)
    is_waiting = False
    while missing := [step for step in distinct.values() if not step.place.exists()]:
        ready = [step for step in missing if all(input.place.exists() for input in step.inputs)]
        done = len(distinct) - len(missing)
        # the first that is free, then look again: what it made may make others ready
        if any(_attempt(step, locks, f"[{done + 1}/{len(distinct)}]", say) for step in ready):
            is_waiting = False
            continue
        if not is_waiting:
            say(f"waiting for another process: {', '.join(step.place.name for step in ready)}")
            is_waiting = True
        time.sleep(_POLL_SECONDS)


def _attempt(step: Step, locks: Path, count: str, say: Say) -> bool:
    """Make ``step``, unless another process is at it; returns whether it is there now."""
    with locked(locks / step.place.name) as is_ours:
        if not is_ours:
            return False
        if not step.place.exists():
            say(f"{count} {step.place.name}")
            started = time.monotonic()
            try:
                step.make()
            except BaseException:
                say(f"      FAILED after {time.monotonic() - started:.1f} s")
                raise
            say(f"      done after {time.monotonic() - started:.1f} s")
        return True


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock while the block runs; yields whether it is ours, always so with ``wait``.

    The kernel drops the lock of a process that was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
