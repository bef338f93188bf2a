"""PGD, projected gradient descent: as FGM, but the attack takes several short steps.

Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
The steps begin at the pair itself, and what they pass on the way teaches the model nothing.
"""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers.passes import Passes, climb


def loss(config: RegulariserConfig, passes: Passes) -> torch.Tensor:
    """Mean of the cross-entropies without and with attack, in 1 + ``ascents`` passes. []"""
    embedded = passes.embed()
    clean = passes.judge(embedded)
    attack = climb(config, passes, 0.0, clean, embedded)
    for _ in range(config.ascents - 1):
        # cut off: this pass finds the way and is then forgotten
        at = (embedded + attack).detach().requires_grad_()
        attack = climb(config, passes, attack, passes.judge(at), at)
    attacked = passes.judge(embedded + attack)
    return (passes.cross_entropy(clean) + passes.cross_entropy(attacked)) / 2
