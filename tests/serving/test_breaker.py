from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.breaker import Breaker, Breaking


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made(**settings: float) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(Breaking(**settings), clock), clock  # type: ignore[arg-type]


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admits()
        breaker.record(is_failure=True)


def test_it_opens_at_the_share_of_failures_and_not_before() -> None:
    breaker, _ = made(min_outcomes=10, share=0.5)
    for number in range(9):
        breaker.record(is_failure=number < 5)
    assert breaker.state == "closed"
    breaker.record(is_failure=False)
    assert breaker.state == "open"
    assert not breaker.admits()


def test_few_failures_say_nothing() -> None:
    breaker, _ = made(min_outcomes=10)
    fail(breaker, 9)
    assert breaker.admits()


def test_old_failures_are_forgotten() -> None:
    breaker, clock = made(min_outcomes=10, window_s=10)
    fail(breaker, 9)
    clock.now = 11
    fail(breaker, 9)
    assert breaker.state == "closed"


def test_after_the_pause_one_request_is_on_trial_and_the_pause_grows() -> None:
    breaker, clock = made(min_outcomes=1, first_pause_s=1, max_pause_s=3)
    fail(breaker, 1)
    for pause in (1, 2, 3, 3):
        clock.now += pause - 0.01
        assert not breaker.admits()
        clock.now += 0.01
        assert breaker.admits()
        assert breaker.state == "half-open"
        assert not breaker.admits()
        breaker.record(is_failure=True)
        assert breaker.state == "open"


def test_a_trial_that_succeeds_closes_it_and_resets_the_pause() -> None:
    breaker, clock = made(min_outcomes=1, first_pause_s=1)
    fail(breaker, 1)
    clock.now = 1
    assert breaker.admits()
    breaker.record(is_failure=True)
    clock.now = 3
    assert breaker.admits()
    breaker.record(is_failure=False)
    assert breaker.state == "closed"
    fail(breaker, 1)
    clock.now = 4
    assert breaker.admits()


def test_what_passed_before_it_opened_does_not_count_as_the_trial() -> None:
    breaker, clock = made(min_outcomes=2)
    assert breaker.admits()
    fail(breaker, 2)
    breaker.record(is_failure=False)
    assert breaker.state == "open"
    assert clock() == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5))))
def test_it_never_stays_shut_for_longer_than_the_longest_pause(
    steps: list[tuple[bool, float]],
) -> None:
    breaker, clock = made(min_outcomes=2, max_pause_s=30)
    for is_failure, seconds in steps:
        clock.now += seconds
        if breaker.admits():
            breaker.record(is_failure=is_failure)
    clock.now += 30
    assert breaker.admits()
