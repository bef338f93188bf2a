"""The matrix products of a traced model in 8-bit integers.

A weight matrix gets a scale for each output channel, an input one range. Ranges are measured when
the engine starts, on rows of random words: rows of real pairs gave no better scores, and would have
to be kept with every checkpoint. Attention, norms and embeddings stay in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from openvino import Core, Model, Node, Output
from openvino import opset13 as ops

from relevance.data.pairs import Pair
from relevance.models.base import CrossEncoder

_ROWS = 256
_STEPS = 63
"""Largest whole number that a weight may be. With 127, processors without VNNI overflow: they add
two products in 16 bits."""
_LEAST_CORRELATION = 0.997
"""Of ranks, with fp32, on the rows of random words, which differ less than real pairs. Trained
3×128 models have 0.9988 and more there and 0.9995 on real pairs, where 0.999 is wanted; MiniLM
(6×384) has 0.993 to 0.996 and misses it."""

_Row = list[NDArray[np.int32]]
"""What the model reads for one pair. Each [1, seq]"""


def quantized(graph: Model, model: CrossEncoder) -> Model:
    """``graph`` with products of integers.

    Args:
        graph: ``model`` in fp32, traced; left as it is.
        model: Whose words the ranges are measured with.

    Raises:
        ValueError: The scores are too far from those of fp32.
    """
    rows = _random_rows(model)
    scores, ranges = _measured(graph, rows)
    found = graph.clone()
    rounded: dict[str, Node] = {}
    for product in _products(found):
        # queries, keys and values share theirs
        source = _source(product)
        if source not in rounded:
            rounded[source] = _rounded(product.input_value(0), *ranges[source])
        product.input(0).replace_source_output(rounded[source].output(0))
        product.input(1).replace_source_output(_weights(product).output(0))
    correlation = _rank_correlation(scores, _measured(found, rows)[0])
    if correlation < _LEAST_CORRELATION:
        raise ValueError(
            f"precision 'int8': rank correlation {correlation:.4f} with fp32 on random words, "
            f"want {_LEAST_CORRELATION}; this checkpoint needs fp32 or bf16"
        )
    return found


def _random_rows(model: CrossEncoder) -> list[_Row]:
    """Pairs of random words that the model knows; every other title has its query's words too."""
    rng = np.random.default_rng(0)
    words = np.array(sorted(word for word in model.tokenizer.get_vocab() if word.isalpha()))
    found = []
    for number in range(_ROWS):
        query = list(rng.choice(words, rng.integers(1, 8)))
        title = list(rng.choice(words, rng.integers(3, 25))) + query * (number % 2)
        rng.shuffle(title)
        # one by one, so that no range covers padding
        batch = model.collate([Pair(" ".join(query), " ".join(title))])
        found.append([batch[name].numpy().astype(np.int32) for name in model.inputs])
    return found


def _measured(
    graph: Model, rows: list[_Row]
) -> tuple[NDArray[np.float32], Mapping[str, tuple[float, float]]]:
    """Scores [rows], and the least and largest value of each product's input."""
    probe = graph.clone()
    sources = {_source(product): product.input_value(0) for product in _products(probe)}
    wanted = [probe.output(0).get_node().input_value(0), *sources.values()]
    outputs = [ops.result(value) for value in wanted]
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = Core().compile_model(Model(outputs, probe.get_parameters()), "CPU", settings)
    request = compiled.create_infer_request()
    scores = np.empty(len(rows), np.float32)
    # 0 stays 0
    low, high = np.zeros(len(sources)), np.zeros(len(sources))
    for place, row in enumerate(rows):
        score, *values = request.infer(dict(enumerate(row))).values()
        scores[place] = score[0]
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    return scores, dict(zip(sources, zip(low, high, strict=True), strict=True))


def _rank_correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float(np.corrcoef(left.argsort().argsort(), right.argsort().argsort())[0, 1])


def _products(graph: Model) -> list[Node]:
    """Linear layers but the last, which has one output and costs nothing."""
    return [
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.input_value(1).get_node().get_type_name() == "Constant"
        and node.get_attributes()["transpose_b"]
        and node.input_value(1).get_shape()[0] > 1
    ]


def _source(product: Node) -> str:
    """Name of the value that a product reads."""
    value = product.input_value(0)
    return f"{value.get_node().get_friendly_name()}:{value.get_index()}"


def _rounded(value: Output, low: float, high: float) -> Node:
    """``value`` in 256 steps, one of which is 0."""
    step = max(high - low, 1e-9) / 255
    least = -np.rint(-low / step) * step
    ends = [ops.constant(np.float32(end)) for end in (least, least + 255 * step)]
    return ops.fake_quantize(value, *ends, *ends, levels=256)


def _weights(product: Node) -> Node:
    """A product's weights as integers and the scale of each row."""
    weights = product.input_value(1).get_node().get_data()
    scales = np.maximum(np.abs(weights).max(1, keepdims=True), 1e-9) / _STEPS
    integers = np.rint(weights / scales).astype(np.int8)
    return ops.multiply(
        ops.convert(ops.constant(integers), np.float32), ops.constant(scales.astype(np.float32))
    )
