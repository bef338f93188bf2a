"""PGD climbs in steps, stays in the ball, and learns from its first and last pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import pgd
from relevance.regularisers.passes import lengths
from tests.relevance.regularisers.small import Small, Watched, batch, learnt, log_likelihood

PGD = RegulariserConfig(name="pgd", epsilon=2.0, ascents=4, step_size=0.8)


def test_one_step_as_long_as_the_radius_is_fgm() -> None:
    one = RegulariserConfig(name="pgd", epsilon=3.0, ascents=1, step_size=3.0)
    model, pairs = Small(), batch(8)
    torch.testing.assert_close(
        learnt(model, one, pairs),
        learnt(model, replace(one, name="fgm"), pairs),
        atol=1e-12,
        rtol=1e-9,
    )


def test_more_steps_find_more_loss_in_the_same_ball() -> None:
    model, pairs = Small(), batch(64)
    losses = []
    for steps in (1, 2, 8):
        watched = Watched()
        config = replace(PGD, ascents=steps, step_size=2.0 / steps)
        pgd.loss(config, model.passes(pairs, watched))
        assert float(lengths(watched.attack).max()) <= 2.0 + 1e-9
        logits = model.judge(watched.judged[-1].detach(), pairs.mask).detach()
        losses.append(float(-log_likelihood(logits, pairs.labels).mean()))
    assert losses == sorted(losses)


def test_what_is_passed_on_the_way_teaches_nothing() -> None:
    model, pairs, watched = Small(), batch(6), Watched()
    found = learnt(model, PGD, pairs)
    pgd.loss(PGD, model.passes(pairs, watched))
    model.zero_grad()
    x = model.embed(pairs)
    losses = [
        -log_likelihood(model.judge(at, pairs.mask), pairs.labels).mean()
        for at in (x, x + watched.attack)
    ]
    ((losses[0] + losses[1]) / 2).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, model.gradients(), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("ascents", [2, 3])
def test_steps_too_short_for_the_radius_add_up(ascents: int) -> None:
    model, pairs, watched = Small(), batch(6), Watched()
    config = replace(PGD, epsilon=5.0, step_size=1e-3, ascents=ascents)
    pgd.loss(config, model.passes(pairs, watched))
    # nearly straight over so short a way
    torch.testing.assert_close(
        lengths(watched.attack),
        torch.full((6, 1, 1), ascents * 1e-3, dtype=torch.float64),
        rtol=1e-3,
        atol=0,
    )
