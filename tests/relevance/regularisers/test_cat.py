"""CAT's loss is equations 3 to 7 of the ei-SRC paper."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from relevance.configs import RegulariserConfig
from relevance.regularisers import cat, fgm
from relevance.regularisers.passes import lengths
from tests.relevance.regularisers.small import (
    Batch,
    Small,
    Watched,
    batch,
    learnt,
    log_likelihood,
    slope,
)

CAT = RegulariserConfig(name="cat")


def naive(model: Small, given: Batch, config: RegulariserConfig) -> torch.Tensor:
    """Equations 3 to 7 a pair at a time, with two-way softmax and torch's own divergence."""
    gradient = slope(model, given)
    terms = []
    for row in range(len(given.labels)):
        g = gradient[row : row + 1]
        r = -config.epsilon * g / g.norm()
        one = Batch(*(t[row : row + 1] for t in vars(given).values()))
        x = model.embed(one)
        z, z_adv = model.judge(x, one.mask), model.judge(x + r, one.mask)
        p, p_adv = (
            torch.stack([torch.zeros_like(v), v], dim=1).log_softmax(dim=1) for v in (z, z_adv)
        )
        terms.append(
            torch.stack(
                [
                    -log_likelihood(z, one.labels).sum(),
                    -log_likelihood(z_adv, one.labels).sum(),
                    functional.kl_div(p_adv, p, reduction="sum", log_target=True) / 2
                    + functional.kl_div(p, p_adv, reduction="sum", log_target=True) / 2,
                ]
            )
        )
    weights = torch.tensor(config.weights, dtype=torch.float64)
    return torch.stack(terms).mean(0) @ weights


@pytest.mark.parametrize("weights", [(0.5, 0.5, 0.01), (0.2, 1.0, 3.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("heat", [1.0, 4.0])
def test_loss_and_gradients_equal_the_equations_written_out(
    weights: tuple[float, float, float], heat: float
) -> None:
    config = RegulariserConfig(name="cat", epsilon=1.5, weights=weights)
    model, pairs = Small(heat=heat), batch(6)
    ours = learnt(model, config, pairs)
    value = model.loss(config, pairs).detach()
    model.zero_grad()
    wanted = naive(model, pairs, config)
    wanted.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(value, wanted.detach(), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(ours, model.gradients(), atol=1e-10, rtol=1e-8)


def test_gradient_equals_finite_differences_with_the_attack_held() -> None:
    config = RegulariserConfig(name="cat", weights=(0.3, 0.6, 2.0))
    model, pairs, watched = Small(), batch(4), Watched()
    found = learnt(model, config, pairs)
    cat.loss(config, model.passes(pairs, watched))
    attack = watched.attack

    def held() -> float:
        with torch.no_grad():
            x = model.embed(pairs)
            z, z_adv = model.judge(x, pairs.mask), model.judge(x + attack, pairs.mask)
            p, p_adv = z.sigmoid(), z_adv.sigmoid()
            kl = p * (p / p_adv).log() + (1 - p) * ((1 - p) / (1 - p_adv)).log()
            kl += p_adv * (p_adv / p).log() + (1 - p_adv) * ((1 - p_adv) / (1 - p)).log()
            fit, fit_adv = (-log_likelihood(v, pairs.labels).mean() for v in (z, z_adv))
            return float(0.3 * fit + 0.6 * fit_adv + 2.0 * kl.mean() / 2)

    step = 1e-5
    for name, parameter in model.named_parameters():
        flat = parameter.data.view(-1)
        # the largest number of the gradient: one of each matrix will do
        at = int(found[name].abs().argmax())
        start = float(flat[at])
        values = []
        for moved in (start + step, start - step):
            flat[at] = moved
            values.append(held())
        flat[at] = start
        slope_found = (values[0] - values[1]) / (2 * step)
        assert slope_found == pytest.approx(float(found[name].view(-1)[at]), rel=1e-5, abs=1e-8)


def test_small_attacks_raise_the_loss_by_epsilon_times_the_gradient() -> None:
    config = RegulariserConfig(name="cat", epsilon=1e-4)
    model, pairs, watched = Small(), batch(256), Watched()
    cat.loss(config, model.passes(pairs, watched))
    clean, attacked = (
        -log_likelihood(model.judge(x.detach(), pairs.mask), pairs.labels).detach()
        for x in watched.judged
    )
    wanted = config.epsilon * slope(model, pairs).norm(dim=(1, 2))
    gained = attacked - clean
    assert float((gained >= 0).double().mean()) >= 0.99
    torch.testing.assert_close(gained, wanted, rtol=1e-3, atol=1e-8)


def test_no_attack_and_no_dropout_leave_three_known_terms() -> None:
    model, pairs = Small(), batch(8)
    terms = [
        float(model.loss(RegulariserConfig(name="cat", epsilon=0, weights=weights), pairs).detach())
        for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]
    assert terms[0] == terms[1] > 0
    assert terms[2] == 0


def test_without_divergence_it_is_fgm() -> None:
    at = RegulariserConfig(name="cat", weights=(0.5, 0.5, 0.0))
    model, pairs = Small(dropout=0.2), batch(8)
    torch.manual_seed(7)
    ours = cat.loss(at, model.passes(pairs)).detach()
    torch.manual_seed(7)
    theirs = fgm.loss(at, model.passes(pairs)).detach()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_reused_dropout_leaves_no_divergence_without_an_attack() -> None:
    model, pairs = Small(dropout=0.3), batch(8)
    apart = {
        reuse: float(
            cat.loss(
                RegulariserConfig(name="cat", epsilon=0, weights=(0, 0, 1), reuse_dropout=reuse),
                model.passes(pairs),
            ).detach()
        )
        for reuse in (True, False)
    }
    assert apart[True] == 0
    assert apart[False] > 1e-4


def test_embedding_dropout_is_drawn_once() -> None:
    model, pairs, watched = Small(dropout=0.3), batch(8), Watched()
    cat.loss(CAT, model.passes(pairs, watched))
    assert len(watched.embedded) == 1
    torch.testing.assert_close(lengths(watched.attack), torch.full((8, 1, 1), 5.0).double())
