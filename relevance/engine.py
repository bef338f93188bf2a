"""Running a model on rows of tokens: OpenVINO on a CPU, torch on a GPU.

OpenVINO is the one engine for CPUs because it measured fastest: see ``benchmarks/results/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from relevance.models.base import CrossEncoder

Rows = Mapping[str, NDArray[np.int32]]
"""What a model's ``score`` reads: each [rows, seq]."""
Engine = Callable[[Iterable[Rows]], list[NDArray[np.float32]]]
"""Raw scores of each batch, in their order. Several threads may call. [batches][rows]"""

PRECISIONS = ("fp32", "bf16", "int8")
"""int8 on a CPU alone."""

ROWS, WIDTH = 8, 4
"""Batches are padded to multiples of these: OpenVINO prepares every new shape anew, and requests of
all sizes would bring thousands."""


def cpu_engine(model: CrossEncoder, precision: str, threads: int) -> Engine:
    """``model`` compiled for this machine's CPU.

    Args:
        model: In evaluation mode; made fp32 where it is less.
        precision: One of ``PRECISIONS``.
        threads: Each has a batch of its own, so that none waits for another within a layer;
            batches of several calls share them.

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
            "NUM_STREAMS": threads,
        },
    )
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(threads):
        requests.put(compiled.create_infer_request())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="engine")

    def score(inputs: Mapping[int, NDArray[np.int32]], count: int) -> NDArray[np.float32]:
        request = requests.get()
        try:
            request.infer(inputs, share_inputs=True)
            return np.array(request.get_output_tensor(0).data[:count], np.float32)
        finally:
            requests.put(request)

    def begin(rows: Rows) -> Future[NDArray[np.float32]]:
        count, width = rows[names[0]].shape
        more = ((0, -count % ROWS), (0, -width % WIDTH))
        # beyond the rows the mask is 0, and nobody looks at the scores
        return pool.submit(score, {i: np.pad(rows[n], more) for i, n in enumerate(names)}, count)

    def run(batches: Iterable[Rows]) -> list[NDArray[np.float32]]:
        return [future.result() for future in [begin(rows) for rows in batches]]

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
    alone = Lock()

    def run(batches: Iterable[Rows]) -> list[NDArray[np.float32]]:
        with alone, torch.inference_mode():
            # all are begun before the first is waited for
            found = [
                score({name: torch.from_numpy(rows[name]).cuda() for name in model.inputs})
                for rows in batches
            ]
            return [np.asarray(scores.float().cpu()) for scores in found]

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
