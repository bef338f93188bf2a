"""Running a model on rows of tokens: OpenVINO on a CPU, torch on a GPU.

OpenVINO is the one engine for CPUs because it measured fastest: see ``benchmarks/results/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from relevance.models.base import CrossEncoder

Rows = Mapping[str, NDArray[np.int32]]
"""What a model's ``score`` reads: each [rows, seq]."""
Engine = Callable[[Rows], NDArray[np.float32]]
"""Raw scores. [rows]"""

PRECISIONS = ("fp32", "bf16", "int8")
"""int8 on a CPU alone."""

ROWS, WIDTH = 16, 4
"""Batches are padded to multiples of these: OpenVINO prepares every new shape anew, and requests of
all sizes would bring thousands."""


def cpu_engine(model: CrossEncoder, precision: str, threads: int) -> Engine:
    """``model`` compiled for this machine's CPU.

    Args:
        model: In evaluation mode; made fp32 where it is less.
        precision: One of ``PRECISIONS``.
        threads: Of one call; calls come one at a time.

    Raises:
        ValueError: Unknown precision, or one that this CPU or this checkpoint cannot have.
    """
    import openvino

    from relevance.quantization import quantized

    _check_precision(precision)
    core = openvino.Core()
    if precision == "bf16" and not has_bf16():
        raise ValueError("precision 'bf16': this CPU cannot; use fp32")
    names = model.inputs
    # rows and widths that differ, so that neither is taken for a constant
    example = tuple(torch.ones(2, 9, dtype=torch.int32) for _ in names)
    with torch.inference_mode():
        # some are published in half precision
        graph = openvino.convert_model(_Traceable(model).float(), example_input=example)
    graph.reshape({i: [-1, -1] for i in range(len(names))})
    compiled = core.compile_model(
        quantized(graph, model) if precision == "int8" else graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        },
    )
    request = compiled.create_infer_request()

    def run(rows: Rows) -> NDArray[np.float32]:
        count, width = rows[names[0]].shape
        more = ((0, -count % ROWS), (0, -width % WIDTH))
        # beyond the rows the mask is 0, and nobody looks at the scores
        inputs = {i: np.pad(rows[name], more) for i, name in enumerate(names)}
        found = request.infer(inputs, share_inputs=True)
        return np.array(next(iter(found.values()))[:count], np.float32)

    return run


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def gpu_engine(model: CrossEncoder, precision: str) -> Engine:
    """``model`` compiled by torch for the first GPU.

    Raises:
        ValueError: Unknown precision, or int8.
    """
    _check_precision(precision)
    if precision == "int8":
        raise ValueError("precision 'int8': GPUs have fp32 and bf16 here")
    half = model.to("cuda", torch.bfloat16 if precision == "bf16" else torch.float32)
    score: Any = torch.compile(half.score, dynamic=True)

    def run(rows: Rows) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = {name: torch.from_numpy(rows[name]).cuda() for name in model.inputs}
            return np.asarray(score(batch).float().cpu())

    return run


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: want one of {', '.join(PRECISIONS)}")


class _Traceable(nn.Module):
    """A model whose batch comes as positional arguments, as tracing wants it."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, *rows: torch.Tensor) -> torch.Tensor:
        return self.model.score(dict(zip(self.model.inputs, rows, strict=True)))
