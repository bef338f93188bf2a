"""Circuit breaker: a scorer that fails often is left alone for a while.

Closed, all requests pass. Once enough of the recent ones failed it opens: none pass, so that
shoppers wait for nothing and the scorer can recover. After a pause one request is let through. If
it succeeds the breaker closes; if not, the next pause is twice as long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True)
class Breaking:
    """When a breaker opens, and for how long."""

    window_s: float = 10.0
    """Outcomes older than this are forgotten."""
    max_outcomes: int = 100
    """Outcomes that are remembered at most."""
    min_outcomes: int = 10
    """Below this many a share says nothing."""
    share: float = 0.5
    """Of failures among the remembered outcomes, at which it opens."""
    first_pause_s: float = 1.0
    max_pause_s: float = 30.0


class Breaker:
    """The breaker of one scorer.

    Every ``admits()`` that is true is followed by one ``record``.
    """

    def __init__(
        self, breaking: Breaking | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._breaking = breaking or Breaking()
        self._clock = clock
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._pause_s = self._breaking.first_pause_s
        self._open_until = 0.0
        self.state: State = "closed"

    def admits(self) -> bool:
        """Whether a request may pass now."""
        if self.state == "closed":
            return True
        if self.state == "open" and self._clock() >= self._open_until:
            self.state = "half-open"
            return True
        return False

    def record(self, *, is_failure: bool) -> None:
        """How a request that passed has ended."""
        now = self._clock()
        if self.state == "half-open":
            if is_failure:
                self._pause_s = min(2 * self._pause_s, self._breaking.max_pause_s)
                self._open(now)
            else:
                self._pause_s = self._breaking.first_pause_s
                self.state = "closed"
            return
        # one that passed before the breaker opened says nothing new
        if self.state == "closed":
            self._remember(now, is_failure)
            enough = len(self._outcomes) >= self._breaking.min_outcomes
            if enough and self._failures >= self._breaking.share * len(self._outcomes):
                self._open(now)

    def _remember(self, now: float, is_failure: bool) -> None:
        self._outcomes.append((now, is_failure))
        self._failures += is_failure
        oldest = now - self._breaking.window_s
        while len(self._outcomes) > self._breaking.max_outcomes or self._outcomes[0][0] < oldest:
            self._failures -= self._outcomes.popleft()[1]

    def _open(self, now: float) -> None:
        self.state = "open"
        self._open_until = now + self._pause_s
        self._outcomes.clear()
        self._failures = 0
