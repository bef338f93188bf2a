"""A killed run ends as one that was not; the same seed gives the same weights.

The model is ei-SRC under contrastive adversarial training, which asks most of the loop: two passes
a step and a gradient of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from relevance.configs import (
    FinetuneConfig,
    LossConfig,
    OptimConfig,
    RegulariserConfig,
    WeakPairsConfig,
)
from relevance.training.finetune import finetune

STAGE = OptimConfig(steps=24, batch_size=8, lr=1e-3, save_every=2, eval_every=6, precision="fp32")
CONFIG = FinetuneConfig(
    family="ei_src",
    loss=LossConfig(regulariser=RegulariserConfig(name="cat", epsilon=0.5)),
    weak=WeakPairsConfig(pairs=60),
    stage_a=STAGE,
    stage_b=STAGE,
)

SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, str(Path(sys.argv[1])))
from relevance.config import override
from relevance.configs import (
    FinetuneConfig, LossConfig, OptimConfig, RegulariserConfig, WeakPairsConfig
)
from relevance.training.finetune import finetune
stage = OptimConfig(
    steps=24, batch_size=8, lr=1e-3, save_every=2, eval_every=6, precision="fp32",
    accumulate=int(sys.argv[5]) if len(sys.argv) > 5 else 1,
)
config = FinetuneConfig(
    family="ei_src",
    loss=LossConfig(regulariser=RegulariserConfig(name="cat", epsilon=0.5)),
    weak=WeakPairsConfig(pairs=60),
    stage_a=stage,
    stage_b=stage,
)
finetune(config, Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), seed=3)
"""

ROOT = Path(__file__).resolve().parents[3]


def weights(checkpoint: Path) -> dict[str, np.ndarray]:
    return dict(load_file(checkpoint / "model.safetensors"))


def same(first: Path, second: Path) -> bool:
    left, right = weights(first), weights(second)
    return left.keys() == right.keys() and all(
        np.array_equal(left[name], right[name]) for name in left
    )


@pytest.fixture(scope="module")
def uninterrupted(tiny_data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "checkpoint"
    finetune(CONFIG, tiny_data, encoder, out, seed=3)
    return out


def test_the_same_seed_gives_the_same_weights(
    uninterrupted: Path, tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    finetune(CONFIG, tiny_data, encoder, tmp_path / "again", seed=3)
    assert same(uninterrupted, tmp_path / "again")


def test_another_seed_gives_other_weights(
    uninterrupted: Path, tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    finetune(CONFIG, tiny_data, encoder, tmp_path / "other", seed=4)
    assert not same(uninterrupted, tmp_path / "other")


def test_a_run_killed_again_and_again_ends_with_the_same_weights(
    uninterrupted: Path, tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    command = [sys.executable, "-c", SCRIPT, str(ROOT), str(tiny_data), str(encoder), str(out)]
    state = tmp_path / ".checkpoint.state"
    moments = []
    for wanted in (1, 5, 14):  # in stage A, later in A, and in stage B
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        changes, last = 0, None
        while changes < wanted and process.poll() is None:
            stamps = [(p.name, p.stat().st_mtime_ns) for p in _files(state)]
            changes += stamps != last
            last = stamps
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            moments.append(wanted)
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait() in (-signal.SIGKILL, 0), errors
    assert moments, "no run was killed before it ended"
    if not out.exists():
        subprocess.run(command, check=True, capture_output=True)
    assert same(uninterrupted, out)
    assert not state.exists()


def _files(state: Path) -> list[Path]:
    try:
        return [path for path in state.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def test_two_processes_and_accumulation_learn_what_one_learns(
    uninterrupted: Path, tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoint"
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    launch += ["--standalone", str(script), str(ROOT), str(tiny_data), str(encoder), str(out), "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(launch, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, [line for line in result.stderr.splitlines() if "Error" in line]
    left, right = weights(uninterrupted), weights(out)
    # dropout differs between processes, so closeness is to the start, not to the bit
    start = load_file(encoder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    moved = np.abs(left[f"bert.{name}"] - start[name]).mean()
    apart = np.abs(left[f"bert.{name}"] - right[f"bert.{name}"]).mean()
    assert apart < moved


def test_accumulation_without_dropout_equals_one_pass(
    tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    plain = replace(CONFIG, dropout=0.0, stage_a=replace(STAGE, steps=0))
    parts = replace(plain, stage_b=replace(STAGE, accumulate=4))
    finetune(plain, tiny_data, encoder, tmp_path / "plain", seed=0)
    finetune(parts, tiny_data, encoder, tmp_path / "parts", seed=0)
    left, right = weights(tmp_path / "plain"), weights(tmp_path / "parts")
    for name in left:
        np.testing.assert_allclose(left[name], right[name], atol=2e-3)
