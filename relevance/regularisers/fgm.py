"""FGM, the fast gradient method: half the loss is the pair's under one long step uphill.

Source: Miyato, Dai & Goodfellow, "Adversarial training methods for semi-supervised text
classification", ICLR 2017. Common code measures the step over the whole embedding matrix and so
over the batch; we measure it over each pair's input.
"""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers.passes import Passes, uphill


def loss(config: RegulariserConfig, passes: Passes) -> torch.Tensor:
    """Mean of the cross-entropies without and with attack, in two passes. []"""
    embedded = passes.embed()
    clean = passes.judge(embedded)
    attack = config.epsilon * uphill(passes, clean, embedded)
    attacked = passes.judge(embedded + attack)
    return (passes.cross_entropy(clean) + passes.cross_entropy(attacked)) / 2
