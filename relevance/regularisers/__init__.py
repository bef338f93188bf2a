"""Losses that make a model hold still: under attack on its input, or under dropout.

Each is a function of its config and a batch that it may judge as often as it likes. To add one:
its file, a line here, its name and its ``forward_passes`` in ``RegulariserConfig``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from relevance.configs import RegulariserConfig
from relevance.regularisers import cat, fgm, freelb, pgd, plain, rdrop
from relevance.regularisers.passes import Passes

__all__ = ["REGULARISERS", "Passes"]

REGULARISERS: Mapping[str, Callable[[RegulariserConfig, Passes], torch.Tensor]] = {
    "none": plain.loss,
    "cat": cat.loss,
    "fgm": fgm.loss,
    "pgd": pgd.loss,
    "freelb": freelb.loss,
    "rdrop": rdrop.loss,
}
"""Name -> mean loss of a batch. []"""
