"""Model families, and checkpoints: a directory of safetensors, tokenizer, config, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from relevance.files import new_dir
from relevance.manifest import verify, write_manifest
from relevance.models.base import Model
from relevance.models.bert import BertConfig
from relevance.models.sbert import SbertConfig

ModelConfig = BertConfig | SbertConfig

FAMILIES: Mapping[str, type[ModelConfig]] = {
    config.family: config for config in (BertConfig, SbertConfig)
}


def save(model: Model, checkpoint: Path) -> None:
    """Write ``model`` as a new checkpoint directory, whole or not at all.

    Raises:
        FileExistsError: ``checkpoint`` is there already.
    """
    with new_dir(checkpoint) as partial:
        model.write(partial)
        write_manifest(partial)


def load(checkpoint: Path) -> Model:
    """Read a checkpoint, ready to score (evaluation mode).

    Raises:
        FileNotFoundError: No checkpoint there.
        ValueError: A file differs from the manifest, or the family is unknown.
    """
    verify(checkpoint)
    fields = json.loads((checkpoint / "config.json").read_text()).get("querylift", {})
    family = fields.pop("family", None)
    if family not in FAMILIES:
        raise ValueError(
            f"{checkpoint / 'config.json'}: family {family!r} is unknown; "
            f"there are {', '.join(FAMILIES)}"
        )
    model = FAMILIES[family](**fields).read(checkpoint)
    model.eval()
    return model
