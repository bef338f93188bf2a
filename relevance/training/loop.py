"""The loop all stages share: accelerate's devices and precision, our exact resumption.

A step's randomness (dropout, masks) is seeded by its number, and its examples are a function of
seed and number too. So the whole training state is weights, moments and a step count, kept in
one safetensors file; a killed run that starts again ends with the same weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from relevance.configs import OptimConfig
from relevance.files import new_file
from relevance.models.base import Batch

Example = TypeVar("Example")


@dataclass(frozen=True)
class Stage(Generic[Example]):
    """What one run of the loop trains, and on what."""

    name: str
    model: nn.Module
    examples: Sequence[Example]
    length: Callable[[Example], int]
    """Rough length of an example, to batch like with like."""
    collate: Callable[[Sequence[Example]], Batch]
    loss: Callable[[Batch, float], torch.Tensor]
    """Of a batch, and of the share of the steps that are done."""
    validate: Callable[[], float] | None = None
    """Higher is better; the best weights seen are kept."""


@dataclass
class Progress:
    """Where a run stands; stored beside the weights."""

    step: int = 0
    best: float = float("-inf")
    best_step: int = 0
    worse: int = 0
    loss: float = float("nan")
    seconds: float = 0.0
    """Spent in steps, over all runs, without validations and states."""


def train(
    stage: Stage[Any], config: OptimConfig, *, seed: int, state: Path, key: str
) -> dict[str, float]:
    """Train ``stage.model`` in place, resuming from ``state`` if a run with ``key`` began there.

    Args:
        stage: Model, examples and losses.
        config: Optimizer and schedule.
        seed: Of the order of examples and of every step's randomness.
        state: Directory of training states.
        key: Fingerprint of everything else that decides the result, from ``fingerprint``.

    Returns:
        Loss of the last step, steps taken, and the best validation if there was any.

    Raises:
        ValueError: No examples, a batch that does not divide, or a loss or gradient that is not
            finite; the message names step, examples and the state that is kept.
    """
    if config.steps == 0:
        return {}
    if not stage.examples:
        raise ValueError(f"{stage.name}: no examples to train on")
    accelerator = _accelerator(config.precision)
    parts = accelerator.num_processes * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"{stage.name}: batch_size {config.batch_size} is no multiple of {parts} "
            "(processes times accumulate)"
        )
    network = _Loss(stage.model, stage.loss)
    optimizer = torch.optim.AdamW(_groups(stage.model, config), lr=config.lr, fused=True)
    network, optimizer = accelerator.prepare(network, optimizer)

    file = state / f"{stage.name}-{key}.safetensors"
    best_file = state / f"{stage.name}-{key}.best.safetensors"
    progress = _restore(file, stage.model, optimizer) if file.exists() else Progress()
    order = _Order(stage, config.batch_size, seed)
    bar = tqdm(
        total=config.steps,
        initial=progress.step,
        desc=stage.name,
        unit="step",
        disable=not accelerator.is_main_process,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    stage.model.train()
    while progress.step < config.steps and progress.worse < max(config.patience, 1):
        step = progress.step
        rank = accelerator.process_index
        torch.manual_seed(_number(seed, stage.name, step, rank))
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps, config.warmup)
        mine = order.batch(step)[rank :: accelerator.num_processes]
        started = time.perf_counter()
        losses = []
        for part in range(config.accumulate):
            chunk = [stage.examples[i] for i in mine[part :: config.accumulate]]
            batch = {k: v.to(accelerator.device) for k, v in stage.collate(chunk).items()}
            loss = network(batch, step / config.steps) / config.accumulate
            accelerator.backward(loss)
            losses.append(loss.detach())
        norm = accelerator.clip_grad_norm_(stage.model.parameters(), config.clip or math.inf)
        total = float(torch.stack(losses).sum())
        if not (math.isfinite(total) and math.isfinite(float(norm))):
            # before the optimizer moves, so the weights are still those of the step before
            if accelerator.is_main_process:
                _store(file, stage.model, optimizer, progress)
            raise ValueError(
                f"{stage.name}: loss is {total}, gradient norm {float(norm)} at step {step}, on "
                f"examples {', '.join(map(str, mine[:8]))}, ...; {file} keeps the weights before "
                "it; lower lr, or look at those examples"
            )
        optimizer.step()
        optimizer.zero_grad()
        progress.step = step + 1
        progress.loss = total
        progress.seconds += time.perf_counter() - started
        bar.update()
        bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)
        last = progress.step == config.steps
        if stage.validate and (last or _due(progress.step, config.eval_every)):
            _validate(stage, progress, accelerator, best_file)
            bar.set_postfix(loss=f"{progress.loss:.4f}", valid=f"{progress.best:.4f}")
        if accelerator.is_main_process and (last or _due(progress.step, config.save_every)):
            _store(file, stage.model, optimizer, progress)
    bar.close()
    if accelerator.is_main_process and progress.step < config.steps:
        _store(file, stage.model, optimizer, progress)
    accelerator.wait_for_everyone()
    if stage.validate:
        _load(best_file, stage.model)
    stage.model.eval()
    examples = progress.step * config.batch_size
    result = {
        f"{stage.name}/loss": progress.loss,
        f"{stage.name}/steps": float(progress.step),
        f"{stage.name}/seconds": progress.seconds,
        f"{stage.name}/examples_per_second": examples / max(progress.seconds, 1e-9),
        f"{stage.name}/peak_memory_gib": _peak_memory(),
    }
    if stage.validate:
        result |= {
            f"{stage.name}/valid": progress.best,
            f"{stage.name}/best_step": float(progress.best_step),
        }
    return result


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at ``step``: linear up, then linear down to 0.

    >>> [round(schedule(step, 10, 0.2), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.125]
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(steps - rising, 1)


def fingerprint(*parts: object) -> str:
    """Short hash of anything with a stable ``repr``: configs, seeds, hashes of files."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def state_dir(out: Path, state: Path | None) -> Path:
    """Where a stage keeps its training states: ``state``, or a hidden directory beside ``out``."""
    return state if state is not None else out.with_name(f".{out.name}.state")


def is_main_process() -> bool:
    """Whether this process is the one that writes results."""
    return bool(processes().is_main_process)


def device() -> torch.device:
    """Where this process trains."""
    return torch.device(processes().device)


def processes() -> PartialState:
    """The processes that train together, this one among them."""
    return PartialState(cpu=not torch.cuda.is_available())


class _Loss(nn.Module):
    """DistributedDataParallel synchronises on ``forward`` only, so the loss is one."""

    def __init__(self, model: nn.Module, loss: Callable[[Batch, float], torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch, progress: float) -> torch.Tensor:
        return self.loss(batch, progress)


class _Order:
    """Which examples make a step's batch: a shuffle per epoch, batched like with like."""

    SORTED_TOGETHER = 32
    """Batches whose examples are sorted by length among themselves."""

    def __init__(self, stage: Stage[Any], batch_size: int, seed: int) -> None:
        self.lengths = np.array([stage.length(example) for example in stage.examples])
        self.batch_size = batch_size
        self.seed = _number(seed, stage.name)
        self.per_epoch = max(1, len(self.lengths) // batch_size)
        self.epoch = -1
        self.batches: list[np.ndarray[Any, np.dtype[np.int64]]] = []

    def batch(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.batches = self._shuffle(epoch)
            self.epoch = epoch
        return [int(i) for i in self.batches[position]]

    def _shuffle(self, epoch: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        rng = np.random.default_rng([self.seed, epoch])
        size = len(self.lengths)
        shuffled = rng.permutation(size)
        if size < self.batch_size:
            shuffled = np.resize(shuffled, self.batch_size)
        window = self.SORTED_TOGETHER * self.batch_size
        sorted_ = [
            part[np.argsort(self.lengths[part], kind="stable")]
            for part in np.split(shuffled, range(window, len(shuffled), window))
        ]
        batches = [
            part[start : start + self.batch_size]
            for part in sorted_
            for start in range(0, len(part) - self.batch_size + 1, self.batch_size)
        ]
        return [batches[i] for i in rng.permutation(len(batches))]


def native_precision() -> str:
    """``bf16`` where the processor multiplies it natively, else ``fp32``: emulated is slower."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def _accelerator(precision: str) -> Accelerator:
    # accelerate remembers a process's first precision and refuses another, but stages may differ;
    # only that is forgotten: the processes stay joined, which PartialState remembers
    AcceleratorState._reset_state()
    chosen = native_precision() if precision == "auto" else precision
    return Accelerator(
        # without this, accelerate takes torchrun's processes on CPUs for so many lone runs
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if chosen == "fp32" else chosen,
    )


def _groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _peak_memory() -> float:
    """Most memory that this process held so far: of the GPU where there is one. [GiB]"""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # kilobytes on Linux, bytes on macOS
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _validate(
    stage: Stage[Any], progress: Progress, accelerator: Accelerator, best_file: Path
) -> None:
    assert stage.validate is not None
    stage.model.eval()
    value = stage.validate()
    stage.model.train()
    if value > progress.best:
        progress.best, progress.best_step, progress.worse = value, progress.step, 0
        if accelerator.is_main_process:
            with new_file(best_file, replace=True) as partial:
                save_file(_weights(stage.model), partial)
    else:
        progress.worse += 1


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    # named_parameters names a tied matrix once, as safetensors wants
    return {name: p.detach().contiguous() for name, p in model.named_parameters()}


def _load(file: Path, model: nn.Module) -> None:
    with safe_open(file, "pt") as stored, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(stored.get_tensor(name))


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _store(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    tensors = _weights(model)
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": values[name] for name in _MOMENTS}
    with new_file(file, replace=True) as partial:
        save_file(tensors, partial, metadata={"progress": json.dumps(vars(progress))})


def _restore(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    _load(file, model)
    fresh = optimizer.state_dict()
    with safe_open(file, "pt") as stored:
        names = set(stored.keys())
        count = sum(len(group["params"]) for group in fresh["param_groups"])
        fresh["state"] = {
            index: {name: stored.get_tensor(f"optimizer.{index}.{name}") for name in _MOMENTS}
            for index in range(count)
            if f"optimizer.{index}.step" in names
        }
        progress = Progress(**json.loads(stored.metadata()["progress"]))
    optimizer.load_state_dict(fresh)
    return progress
