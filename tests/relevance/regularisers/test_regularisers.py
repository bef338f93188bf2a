"""What holds for every regulariser of the table."""

from __future__ import annotations

import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from relevance.configs import RegulariserConfig
from relevance.regularisers import REGULARISERS
from relevance.regularisers.passes import lengths
from tests.relevance.regularisers.small import Small, Watched, batch, config_of, learnt

NAMES = tuple(REGULARISERS)
ONE_STEP = ("cat", "fgm", "pgd")


def test_the_table_has_every_name_that_the_config_takes() -> None:
    taken = typing.get_args(typing.get_type_hints(RegulariserConfig)["name"])
    assert taken == NAMES


@given(st.sampled_from(NAMES), st.integers(1, 4))
@settings(max_examples=24, deadline=None)
def test_forward_passes_are_as_many_as_are_made(name: str, ascents: int) -> None:
    config = config_of(name, ascents=ascents, epsilon=1.0)
    watched = Watched()
    REGULARISERS[name](config, Small().passes(batch(2), watched))
    assert len(watched.judged) == config.forward_passes


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_one_finite_number_and_leaves_gradients_to_the_caller(name: str) -> None:
    model = Small(dropout=0.1)
    loss = model.loss(config_of(name, epsilon=5.0), batch(8))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert not model.gradients()
    loss.backward()  # type: ignore[no-untyped-call]
    assert set(model.gradients()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_without_ball_and_dropout_only_cross_entropy_is_left(name: str) -> None:
    model, pairs = Small(), batch(8)
    config = config_of(name, epsilon=0.0, weights=(0.5, 0.5, 0.01))  # CAT's fits sum to 1
    torch.testing.assert_close(
        learnt(model, config, pairs),
        learnt(model, config_of("none"), pairs),
        atol=1e-12,
        rtol=1e-9,
    )


@given(st.sampled_from(ONE_STEP), st.integers(1, 9), st.floats(1e-3, 20), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_an_attack_is_epsilon_long_for_every_pair_and_spares_padding(
    name: str, pairs: int, epsilon: float, seed: int
) -> None:
    drawn, watched = batch(pairs, seed=seed), Watched()
    config = config_of(name, epsilon=epsilon, step_size=epsilon, ascents=1)
    REGULARISERS[name](config, Small().passes(drawn, watched))
    wanted = torch.full((pairs, 1, 1), epsilon, dtype=torch.float64)
    torch.testing.assert_close(lengths(watched.attack), wanted, rtol=1e-6, atol=0)
    assert watched.attack[drawn.mask == 0].eq(0).all()


@pytest.mark.parametrize("name", ["cat", "fgm", "pgd", "freelb"])
def test_a_model_that_listens_to_nothing_is_attacked_by_nothing(name: str) -> None:
    model, pairs, watched = Small(), batch(4), Watched()
    torch.nn.init.zeros_(model.network.classifier.weight)
    loss = REGULARISERS[name](config_of(name), model.passes(pairs, watched))
    assert torch.isfinite(loss)
    assert watched.attack.eq(0).all()


@pytest.mark.parametrize("name", ONE_STEP)
def test_a_pair_is_attacked_the_same_in_any_company(name: str) -> None:
    model, pairs = Small(), batch(64)
    attacks = []
    for part in (pairs, *(pairs.rows(row, row + 1) for row in range(0, 64, 9))):
        watched = Watched()
        REGULARISERS[name](config_of(name), model.passes(part, watched))
        attacks.append(watched.attack)
    together, *alone = attacks
    for row, attack in zip(range(0, 64, 9), alone, strict=True):
        width = attack.shape[1]
        torch.testing.assert_close(together[row, :width], attack[0], atol=1e-10, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_two_halves_accumulated_teach_what_the_batch_teaches(name: str) -> None:
    model, pairs = Small(), batch(8)
    whole = learnt(model, config_of(name), pairs)
    halves = learnt(model, config_of(name), pairs.rows(0, 4), pairs.rows(4, 8))
    torch.testing.assert_close(halves, whole, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_close(name: str) -> None:
    model, pairs = Small(dtype=torch.float32), batch(32, dtype=torch.float32)
    config = config_of(name)
    full = learnt(model, config, pairs)
    full_loss = float(model.loss(config, pairs).detach())
    watched = Watched()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = REGULARISERS[name](config, model.passes(pairs, watched))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(full_loss, rel=0.02)
    one, other = (
        torch.cat([g.flatten() for g in found.values()]) for found in (full, model.gradients())
    )
    assert float(torch.cosine_similarity(one, other, dim=0)) > 0.98
    if name in ("cat", "fgm"):
        wanted = torch.full((32, 1, 1), 2.0)
        torch.testing.assert_close(lengths(watched.attack), wanted, rtol=1e-5, atol=0)


SCRIPT = """
import sys
import torch
from safetensors.torch import save_file
from torch.distributed import barrier, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

root, meeting, out, rank = *sys.argv[1:4], int(sys.argv[4])
sys.path.insert(0, root)
from relevance.regularisers import REGULARISERS
from tests.relevance.regularisers.small import Small, batch, config_of

init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
model = Small()
wrapped = DistributedDataParallel(model)
found = {}
for name in REGULARISERS:
    model.zero_grad()
    wrapped(config_of(name), batch(8).rows(4 * rank, 4 * rank + 4)).backward()
    found |= {f"{name}/{key}": value for key, value in model.gradients().items()}
if rank == 0:
    save_file(found, out)
barrier()
destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Gradients of each regulariser when two processes take half of the batch each."""
    directory = tmp_path_factory.mktemp("two")
    out = directory / "gradients.safetensors"
    command = [sys.executable, "-c", SCRIPT, str(root), str(directory / "meeting"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    return load_file(out)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_learn_what_one_learns(
    name: str, two_processes: dict[str, torch.Tensor]
) -> None:
    wanted = learnt(Small(), config_of(name), batch(8))
    found = {key: two_processes[f"{name}/{key}"] for key in wanted}
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": -0.1},
        {"epsilon": float("nan")},
        {"ascents": 0},
        {"step_size": -1.0},
        {"divergence": -1.0},
        {"weights": (0.5, -0.5, 0.0)},
        {"weights": (0.0, 0.0, 0.0)},
        {"weights": (0.5, 0.5)},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, typing.Any]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=field):
        RegulariserConfig(**wrong)
