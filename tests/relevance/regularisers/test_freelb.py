"""FreeLB starts at random in the ball and averages over its passes, all of one dropout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import freelb
from relevance.regularisers.passes import lengths, uphill
from tests.relevance.regularisers.small import Small, Watched, batch, learnt, log_likelihood

FREELB = RegulariserConfig(name="freelb", epsilon=2.0, ascents=3, step_size=0.8)


@pytest.mark.parametrize("ascents", [1, 3])
def test_without_a_ball_it_is_that_many_clean_passes_averaged(ascents: int) -> None:
    config = replace(FREELB, epsilon=0.0, ascents=ascents)
    model, pairs = Small(), batch(8)
    clean = RegulariserConfig(name="none")
    torch.testing.assert_close(
        learnt(model, config, pairs),
        learnt(model, clean, *[pairs] * ascents),
        atol=1e-12,
        rtol=1e-9,
    )


def test_it_starts_in_the_ball_and_on_no_padding() -> None:
    model, pairs, watched = Small(), batch(64), Watched()
    freelb.loss(FREELB, model.passes(pairs, watched))
    start = (watched.judged[0] - watched.embedded[0]).detach()
    assert start[pairs.mask == 0].eq(0).all()
    assert float(lengths(start).max()) <= 2.0
    # numbers even over ± e/√n are e/√3 long together
    assert float(lengths(start).mean()) == pytest.approx(2.0 / 3**0.5, rel=0.05)
    bound = 2.0 / (pairs.mask.sum(1) * 16).sqrt()
    assert (start.abs() <= bound[:, None, None] + 1e-9).all()
    assert not start[0].eq(start[1]).all()


def test_every_pass_is_a_projected_step_after_the_one_before_and_teaches() -> None:
    model, pairs, watched = Small(), batch(6), Watched()
    torch.manual_seed(3)
    found = learnt(model, FREELB, pairs)
    torch.manual_seed(3)
    freelb.loss(FREELB, model.passes(pairs, watched))
    attacks = [(at - watched.embedded[0]).detach() for at in watched.judged]
    model.zero_grad()
    passes, x = model.passes(pairs), model.embed(pairs)
    losses = []
    for number, attack in enumerate(attacks):
        at = x + attack
        logits = passes.judge(at)
        losses.append(-log_likelihood(logits, pairs.labels).mean())
        if number + 1 < len(attacks):
            moved = attack + 0.8 * uphill(passes, logits, at)
            wanted = moved * (2.0 / lengths(moved)).clamp(max=1)
            torch.testing.assert_close(attacks[number + 1], wanted, atol=1e-10, rtol=1e-8)
    torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, model.gradients(), atol=1e-10, rtol=1e-8)


def test_all_passes_drop_the_same_units() -> None:
    model, pairs = Small(dropout=0.4), batch(8)
    passes = model.passes(pairs)
    judged: list[torch.Tensor] = []

    def judge(embedded: torch.Tensor) -> torch.Tensor:
        judged.append(passes.judge(embedded))
        return judged[-1]

    freelb.loss(
        replace(FREELB, epsilon=0.0),
        type(passes)(passes.embed, judge, passes.mask, passes.labels),
    )
    assert judged[0].equal(judged[1])
    assert judged[0].equal(judged[2])
