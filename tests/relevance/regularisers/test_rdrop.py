"""R-Drop's two passes differ in dropout and in nothing else."""

from __future__ import annotations

from dataclasses import replace

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import plain, rdrop
from relevance.regularisers.passes import divergence
from tests.relevance.regularisers.small import Small, Watched, batch, learnt, log_likelihood

RDROP = RegulariserConfig(name="rdrop", divergence=3.0)


def test_without_dropout_it_is_plain() -> None:
    model, pairs = Small(), batch(8)
    torch.testing.assert_close(
        learnt(model, RDROP, pairs),
        learnt(model, replace(RDROP, name="none"), pairs),
        atol=1e-12,
        rtol=1e-9,
    )


def test_loss_is_the_mean_fit_and_the_weighted_divergence_of_two_drawn_passes() -> None:
    model, pairs, watched = Small(dropout=0.3), batch(8), Watched()
    torch.manual_seed(5)
    found = rdrop.loss(RDROP, model.passes(pairs, watched))
    assert not watched.embedded[0].equal(watched.embedded[1])
    torch.manual_seed(5)
    one, other = (model.judge(model.embed(pairs), pairs.mask) for _ in range(2))
    fit = sum(-log_likelihood(logits, pairs.labels).mean() / 2 for logits in (one, other))
    torch.testing.assert_close(found, fit + 3.0 * divergence(one, other))
    torch.manual_seed(5)
    alone = plain.loss(RDROP, model.passes(pairs))
    torch.testing.assert_close(alone, -log_likelihood(one, pairs.labels).mean())
