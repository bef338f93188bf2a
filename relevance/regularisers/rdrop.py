"""R-Drop: two passes that differ in dropout only, and should agree.

Source: Wu et al., "R-Drop: regularized dropout for neural networks", NeurIPS 2021. We average the
two cross-entropies where the paper adds them, so that the loss is on one scale with the others.
"""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers.passes import Passes, divergence


def loss(config: RegulariserConfig, passes: Passes) -> torch.Tensor:
    """Mean of both cross-entropies plus the weighted divergence, in two passes. []"""
    one = passes.judge(passes.embed())
    other = passes.judge(passes.embed())
    fit = (passes.cross_entropy(one) + passes.cross_entropy(other)) / 2
    return fit + config.divergence * divergence(one, other)
