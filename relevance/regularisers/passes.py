"""What the regularisers share: a batch that is judged more than once, and how it is attacked.

An attack moves the embedded input, [pairs, seq, hidden]. Its length is taken over the tokens and
the width of one pair, never over the batch, so that a pair is attacked the same in any company.
Attacks are constants: no gradient flows through them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.checkpoint import get_device_states, set_device_states

from relevance.configs import RegulariserConfig


@dataclass(frozen=True)
class Passes:
    """A batch of pairs, and how to pass it through the model."""

    embed: Callable[[], torch.Tensor]
    """What the layers read, after norm and dropout; each call draws that dropout anew.
    [pairs, seq, hidden]"""
    judge: Callable[[torch.Tensor], torch.Tensor]
    """Embedded pairs to heated logits, fp32 or finer; each call is a forward pass. [pairs]"""
    mask: torch.Tensor
    """1 where there is a token, 0 on padding. [pairs, seq]"""
    labels: torch.Tensor
    """Probabilities of being relevant, 0 to 1. [pairs]"""

    def cross_entropy(self, logits: torch.Tensor) -> torch.Tensor:
        """Mean of -log p(label | pair), which soft labels weigh. []"""
        return functional.binary_cross_entropy_with_logits(logits, self.labels)


def divergence(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Mean of (KL(p || p') + KL(p' || p)) / 2, the gradient flowing into both. []

    For yes or no the sum of the two is (p - p')(logit p - logit p'): no logarithm, so it stays
    finite however sure the model is.

    >>> float(divergence(torch.tensor([0.0]), torch.tensor([0.0])))
    0.0
    """
    return ((logits.sigmoid() - others.sigmoid()) * (logits - others)).mean() / 2


def uphill(passes: Passes, logits: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Where each pair's cross-entropy rises fastest, as a step of length 1. [pairs, seq, hidden]

    It is 0 on padding, and for pairs whose gradient is 0. No parameter's gradient is touched and
    the graph of ``logits`` is kept, so the loss may be built on it still.

    Args:
        passes: The batch.
        logits: What ``passes.judge`` said of ``at``. [pairs]
        at: Embedded input that the logits depend on. [pairs, seq, hidden]
    """
    # The gradient is (p - y) times that of the logit, so of p - y only the sign decides where it
    # points. Written without 1 - p, which would round to 0 for a pair that is judged well: such
    # a pair is attacked too.
    labels = passes.labels
    error = (1 - labels) * logits.sigmoid() - labels * (-logits).sigmoid()
    (slope,) = torch.autograd.grad(logits, at, error.detach().sign(), retain_graph=True)
    slope = slope.to(torch.promote_types(slope.dtype, torch.float32)) * passes.mask[..., None]
    length = lengths(slope)
    return slope / length.where(length > 0, 1)


def climb(
    config: RegulariserConfig,
    passes: Passes,
    attack: torch.Tensor | float,
    logits: torch.Tensor,
    at: torch.Tensor,
) -> torch.Tensor:
    """``attack`` after a step uphill, back in the ball of radius epsilon. [pairs, seq, hidden]

    Args:
        config: Length of the step and radius.
        passes: The batch.
        attack: From before the step. [pairs, seq, hidden]
        logits: Of the pairs under ``attack``. [pairs]
        at: Embedded input under ``attack``. [pairs, seq, hidden]
    """
    moved: torch.Tensor = attack + config.step_size * uphill(passes, logits, at)
    length = lengths(moved)
    return moved * torch.where(length > config.epsilon, config.epsilon / length, 1)


def lengths(attack: torch.Tensor) -> torch.Tensor:
    """Euclidean length of each pair's attack. [pairs, 1, 1]"""
    found: torch.Tensor = torch.linalg.vector_norm(attack, dim=(1, 2), keepdim=True)
    return found


def replaying(
    judge: Callable[[torch.Tensor], torch.Tensor], device_of: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """``judge``, but every call drops the units that the first one drops.

    Args:
        judge: From ``Passes``.
        device_of: Any tensor on the device that ``judge`` runs on.
    """
    host = torch.get_rng_state()
    devices, states = get_device_states(device_of)

    def replay(embedded: torch.Tensor) -> torch.Tensor:
        torch.set_rng_state(host)
        set_device_states(devices, states, device_type=device_of.device.type)
        return judge(embedded)

    return replay
