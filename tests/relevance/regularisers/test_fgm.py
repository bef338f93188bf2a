"""FGM averages a pair's losses without and with one step."""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import fgm
from tests.relevance.regularisers.small import Small, batch, log_likelihood, slope


def test_loss_is_the_mean_of_both_cross_entropies() -> None:
    config = RegulariserConfig(name="fgm", epsilon=2.0)
    model, pairs = Small(), batch(8)
    g = slope(model, pairs)
    x = model.embed(pairs)
    losses = [
        -log_likelihood(model.judge(at, pairs.mask), pairs.labels).mean()
        for at in (x, x - 2.0 * g / g.norm(dim=(1, 2), keepdim=True))
    ]
    torch.testing.assert_close(
        fgm.loss(config, model.passes(pairs)), (losses[0] + losses[1]) / 2, atol=1e-12, rtol=1e-10
    )
