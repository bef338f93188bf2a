"""The divergence, the direction of attack, the ball, the replay of dropout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from relevance.configs import RegulariserConfig
from relevance.regularisers.passes import Passes, climb, divergence, lengths, replaying, uphill
from tests.relevance.regularisers.small import Small, Watched, batch, slope

LOGIT = st.floats(-30, 30, allow_subnormal=False)


@given(LOGIT, LOGIT)
def test_divergence_is_half_the_sum_of_both_kullback_leiblers(one: float, other: float) -> None:
    z, z_other = (torch.tensor([[0.0, logit]], dtype=torch.float64) for logit in (one, other))
    p, q = z.log_softmax(dim=1), z_other.log_softmax(dim=1)
    both = functional.kl_div(q, p, reduction="sum", log_target=True) + functional.kl_div(
        p, q, reduction="sum", log_target=True
    )
    ours = float(divergence(z[:, 1], z_other[:, 1]))
    assert ours == pytest.approx(float(both) / 2, abs=1e-12)
    assert ours == float(divergence(z_other[:, 1], z[:, 1])) >= 0


def test_divergence_sees_what_keras_between_raw_logits_does_not() -> None:
    # keras.losses.KLD on these clips both to [1e-7, 1] and returns exactly 0
    one, other = torch.tensor([-3.0, 2.0, 0.4]), torch.tensor([-1.0, 5.0, 0.4])
    p, q = (torch.stack([-z, z], dim=1).div(2).softmax(dim=1) for z in (one, other))
    both = functional.kl_div(q.log(), p, reduction="sum") + functional.kl_div(
        p.log(), q, reduction="sum"
    )
    assert float(divergence(one, other)) == pytest.approx(float(both) / 2 / 3, rel=1e-6)
    assert float(divergence(one, other)) > 0.05
    clipped = [np.clip(z.numpy(), 1e-7, 1) for z in (one, other)]
    assert float(np.sum(clipped[0] * np.log(clipped[0] / clipped[1]))) == 0


def test_divergence_is_finite_however_sure_the_model_is() -> None:
    one = torch.tensor([500.0, -500.0], requires_grad=True)
    found = divergence(one, -one.detach())
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == 500
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()


def test_uphill_is_the_normed_gradient_of_minus_the_log_likelihood() -> None:
    model, pairs = Small(), batch(16)
    embedded = model.embed(pairs)
    found = uphill(model.passes(pairs), model.judge(embedded, pairs.mask), embedded)
    wanted = -slope(model, pairs)
    torch.testing.assert_close(found, wanted / lengths(wanted), atol=1e-12, rtol=1e-9)


def judged_linearly(weight: torch.Tensor, labels: list[float], at: torch.Tensor) -> torch.Tensor:
    """Direction for logits that are a product of ``weight`` and the input ``at``."""

    def judge(embedded: torch.Tensor) -> torch.Tensor:
        return (embedded * weight).sum((1, 2))

    made = Passes(lambda: at, judge, torch.ones(at.shape[:2]), torch.tensor(labels, dtype=at.dtype))
    return uphill(made, judge(at), at)


def test_uphill_is_zero_on_padding_even_if_the_model_looks_there() -> None:
    at = torch.zeros(1, 3, 4, requires_grad=True)
    passes = Passes(
        lambda: at, lambda x: x.sum((1, 2)), torch.tensor([[1, 1, 0]]), torch.tensor([0.0])
    )
    found = uphill(passes, passes.judge(at), at)
    assert found[:, 2].eq(0).all()
    torch.testing.assert_close(found[:, :2], torch.full((1, 2, 4), 8**-0.5))


def test_uphill_is_zero_where_the_gradient_is() -> None:
    at = torch.zeros(3, 2, 2, requires_grad=True)
    # the first is judged exactly as its label says, the second says the same of any input
    weight = torch.stack([torch.ones(2, 2), torch.zeros(2, 2), torch.ones(2, 2)])
    found = judged_linearly(weight, [0.5, 1.0, 1.0], at)
    assert found[:2].eq(0).all()
    assert found[2].eq(-0.5).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_uphill_finds_the_way_for_pairs_judged_beyond_the_precision_of_p(label: float) -> None:
    at = torch.full((1, 2, 2), (2 * label - 1) * 10.0, requires_grad=True)
    found = judged_linearly(torch.ones(1, 2, 2), [label], at)  # logit ±40, where 1 - p is 0 in fp32
    torch.testing.assert_close(found, torch.full_like(found, 0.5 - label))


def test_uphill_touches_no_parameters_gradient_and_keeps_the_graph() -> None:
    model, pairs = Small(), batch(4)
    embedded = model.embed(pairs)
    logits = model.judge(embedded, pairs.mask)
    assert not uphill(model.passes(pairs), logits, embedded).requires_grad
    assert not model.gradients()
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert model.gradients()


@given(
    st.floats(0, 10, allow_subnormal=False),
    st.floats(0, 10, allow_subnormal=False),
    st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_climbing_stays_in_the_ball(epsilon: float, step_size: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64)
    at = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    config = RegulariserConfig(epsilon=epsilon, step_size=step_size)
    passes = Passes(
        lambda: at, lambda x: (x * weight).sum((1, 2)), torch.ones(2, 3), torch.tensor([0.0, 1.0])
    )
    attack = torch.zeros_like(weight)
    for taken in range(1, 4):
        attack = climb(config, passes, attack, passes.judge(at), at)
        # on a linear slope every step goes the same way
        wanted = min(epsilon, taken * step_size)
        torch.testing.assert_close(
            lengths(attack), torch.full((2, 1, 1), wanted, dtype=torch.float64)
        )


def test_replayed_passes_drop_the_same_units_and_the_next_batch_others() -> None:
    model, pairs = Small(dropout=0.4), batch(4)
    embedded = model.embed(pairs)
    watched = Watched()
    judge = replaying(model.passes(pairs, watched).judge, embedded)
    first, second = judge(embedded), judge(embedded)
    assert first.equal(second)
    assert not replaying(model.passes(pairs).judge, embedded)(embedded).equal(first)
    assert len(watched.judged) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_replayed_passes_drop_the_same_units_on_a_gpu() -> None:
    embedded = torch.ones(4, 64, 64, device="cuda")
    judge = replaying(lambda x: functional.dropout(x, 0.5), embedded)
    assert judge(embedded).equal(judge(embedded))
    assert not functional.dropout(embedded, 0.5).equal(judge(embedded))


@pytest.mark.parametrize(("margin", "wanted"), [(2.0, 0.0013), (-2.0, 3.9987)])
def test_heat_scales_the_gradient_of_a_logit(margin: float, wanted: float) -> None:
    heat = 4.0
    both = torch.tensor([[0.0, margin]], dtype=torch.float64, requires_grad=True)
    passes = Passes(
        lambda: both,
        lambda z: heat * (z[:, 1] - z[:, 0]),
        torch.ones(1, 2),
        torch.ones(1, dtype=torch.float64),
    )
    logits = passes.judge(passes.embed())
    (found,) = torch.autograd.grad(passes.cross_entropy(logits), both)
    p = 1 / (1 + math.exp(-heat * margin))
    assert float(found[0, 1]) == pytest.approx(-heat * (1 - p), abs=1e-12)
    assert float(-found[0, 1]) == pytest.approx(wanted, abs=5e-5)
