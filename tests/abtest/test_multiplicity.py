"""Adjusted p-values against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from abtest.multiplicity import benjamini_hochberg, holm

METHODS = [(holm, "holm"), (benjamini_hochberg, "fdr_bh")]
families = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize(("method", "theirs"), METHODS)
@pytest.mark.parametrize(
    "pvalues", [[0.2], [0.04, 0.001, 0.03, 0.03], [0.9, 0.02, 0.02, 0.0, 1.0, 0.3, 0.012]]
)
def test_pvalues_are_statsmodels(method, theirs, pvalues):
    expected = multipletests(pvalues, 0.05, theirs)[1]
    np.testing.assert_allclose(method(pvalues).pvalues, expected, atol=1e-12)


@pytest.mark.parametrize("method", [holm, benjamini_hochberg])
@given(pvalues=families, alpha=st.sampled_from([0.01, 0.05, 0.3]))
@settings(max_examples=150, deadline=None)
def test_each_level_decides_as_the_adjusted_pvalue_does(method, pvalues, alpha):
    found = method(pvalues, alpha)
    for raw, adjusted, level in zip(pvalues, found.pvalues, found.alphas, strict=True):
        if abs(raw - level) > 1e-12:
            assert (raw <= level) == (adjusted <= alpha)


@pytest.mark.parametrize("method", [holm, benjamini_hochberg])
@pytest.mark.parametrize("pvalues", [[], [1.2], [-0.1], [float("nan"), 0.5]])
def test_bad_pvalues_raise(method, pvalues):
    with pytest.raises(ValueError, match="p-values"):
        method(pvalues)


@pytest.mark.parametrize("method", [holm, benjamini_hochberg])
def test_an_alpha_outside_0_to_1_raises(method):
    with pytest.raises(ValueError, match="alpha"):
        method([0.5], 0.0)
