"""Without a regulariser there is cross-entropy alone."""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import plain
from tests.relevance.regularisers.small import Small, batch, log_likelihood


def test_loss_is_the_mean_cross_entropy_on_soft_labels() -> None:
    model, pairs = Small(heat=2.0), batch(8)
    logits = model.judge(model.embed(pairs), pairs.mask)
    torch.testing.assert_close(
        plain.loss(RegulariserConfig(), model.passes(pairs)),
        -log_likelihood(logits, pairs.labels).mean(),
    )
