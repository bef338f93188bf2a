"""FreeLB, free large-batch training: every pass of a climbing attack teaches the model.

Source: Zhu et al., "FreeLB: enhanced adversarial training for natural language understanding",
ICLR 2020, algorithm 1. As there, the attack starts at random, each number drawn evenly between
-epsilon / sqrt(n) and epsilon / sqrt(n) where n numbers make a pair: in the ball, about 0.58 of
its radius out, while a draw even over the ball itself would, in so many dimensions, lie on its
surface. All passes drop the same units.
"""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers.passes import Passes, climb, replaying


def loss(config: RegulariserConfig, passes: Passes) -> torch.Tensor:
    """Mean cross-entropy of ``ascents`` passes, each a step further uphill. []"""
    embedded = passes.embed()
    attack = _start(config.epsilon, embedded, passes.mask)
    judge = replaying(passes.judge, embedded)
    at = embedded + attack
    logits = judge(at)
    losses = [passes.cross_entropy(logits)]
    for _ in range(config.ascents - 1):
        attack = climb(config, passes, attack, logits, at)
        at = embedded + attack
        logits = judge(at)
        losses.append(passes.cross_entropy(logits))
    return torch.stack(losses).mean()


def _start(epsilon: float, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A random attack in the ball of radius ``epsilon``. [pairs, seq, hidden]"""
    drawn = 2 * torch.rand_like(embedded) - 1
    numbers = mask.sum(1)[:, None, None] * embedded.shape[-1]  # [pairs, 1, 1]
    return drawn * mask[..., None] * epsilon / numbers.sqrt()
