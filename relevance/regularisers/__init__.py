"""Losses that make a model hold still: under attack on its input, or under dropout.

Each is a function of its config and a batch that it may judge as often as it likes. To add one:
its file, a line here and in ``forward_passes``, its name in ``RegulariserConfig``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import cat, fgm, freelb, pgd, plain, rdrop
from relevance.regularisers.passes import Passes

__all__ = ["REGULARISERS", "Passes", "forward_passes"]

REGULARISERS: Mapping[str, Callable[[RegulariserConfig, Passes], torch.Tensor]] = {
    "none": plain.loss,
    "cat": cat.loss,
    "fgm": fgm.loss,
    "pgd": pgd.loss,
    "freelb": freelb.loss,
    "rdrop": rdrop.loss,
}
"""Name -> mean loss of a batch. []"""


def forward_passes(config: RegulariserConfig) -> int:
    """How often a step judges its batch: what a fair comparison holds equal.

    >>> forward_passes(RegulariserConfig(name="pgd", ascents=3))
    4
    """
    return {
        "none": 1,
        "cat": 2,
        "fgm": 2,
        "pgd": 1 + config.ascents,
        "freelb": config.ascents,
        "rdrop": 2,
    }[config.name]
