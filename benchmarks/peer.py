"""A CrossEncoder of sentence-transformers on one of its backends, for ``scoring.py``.

Reads pairs as JSON, then answers every further line with their scores.
"""

from __future__ import annotations

import json
import sys

import torch
from sentence_transformers import CrossEncoder


def main() -> None:
    """Score on demand."""
    model, backend, precision, batch = sys.argv[1:]
    settings = {}
    if backend == "openvino":
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        settings["model_kwargs"] = {"ov_config": {"INFERENCE_PRECISION_HINT": hint}}
    encoder = CrossEncoder(model, device="cpu", backend=backend, **settings)
    pairs = [tuple(pair) for pair in json.loads(sys.stdin.readline())]
    plain = torch.nn.Identity()
    for _ in sys.stdin:
        scores = encoder.predict(pairs, batch_size=int(batch), activation_fn=plain)
        print(json.dumps([float(score) for score in scores]), flush=True)


if __name__ == "__main__":
    main()
