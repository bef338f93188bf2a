"""CAT, contrastive adversarial training: fit the pair, fit it under attack, let both agree.

Source: Chen et al., "Robust Interaction-based Relevance Modeling for Online E-Commerce and
LLM-based Retrieval" (ei-SRC), equations 3 to 7. What it leaves open we take from the authors' code:
what is attacked is the sum of all embeddings after norm and dropout, a pair at a time. We differ
from that code in the divergence, which it takes between raw logits, not between probabilities.

With a last weight of 0 this is the paper's adversarial training (AT).
"""

from __future__ import annotations

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers.passes import Passes, divergence, replaying, uphill


def loss(config: RegulariserConfig, passes: Passes) -> torch.Tensor:
    """Weighted sum of both cross-entropies and the divergence, in two passes. []"""
    embedded = passes.embed()
    judge = replaying(passes.judge, embedded) if config.reuse_dropout else passes.judge
    clean = judge(embedded)
    attack = config.epsilon * uphill(passes, clean, embedded)
    attacked = judge(embedded + attack)
    fit, fit_attacked, agree = config.weights
    return (
        fit * passes.cross_entropy(clean)
        + fit_attacked * passes.cross_entropy(attacked)
        + agree * divergence(clean, attacked)
    )
