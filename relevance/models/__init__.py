"""Model families, and checkpoints: a directory of safetensors, tokenizer, config, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from relevance.calibration import Calibration
from relevance.configs import DistillConfig, FinetuneConfig
from relevance.files import new_dir
from relevance.manifest import verify, write_manifest
from relevance.models.base import Model
from relevance.models.bert import BertConfig
from relevance.models.ei_src import EiSrcConfig
from relevance.models.sbert import SbertConfig

ModelConfig = BertConfig | SbertConfig | EiSrcConfig

FAMILIES: Mapping[str, type[ModelConfig]] = {
    config.family: config for config in (BertConfig, SbertConfig, EiSrcConfig)
}


def family_config(settings: FinetuneConfig | DistillConfig) -> ModelConfig:
    """The family's own config; its fields are settings of the same name.

    Raises:
        ValueError: A setting asks for what the family lacks.
    """
    family = FAMILIES[settings.family]
    names = {field.name for field in fields(family)}
    for field in fields(settings):
        able = [n for n, c in FAMILIES.items() if field.name in {f.name for f in fields(c)}]
        given = getattr(settings, field.name)
        if able and settings.family not in able and given != field.default:
            raise ValueError(
                f"{field.name}={given}: family {settings.family!r} has no {field.name}; "
                f"{', '.join(able)} has"
            )
    return family(**{name: getattr(settings, name) for name in names})


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
    settings = json.loads((checkpoint / "config.json").read_text()).get("querylift", {})
    family = settings.pop("family", None)
    if family not in FAMILIES:
        raise ValueError(
            f"{checkpoint / 'config.json'}: family {family!r} is unknown; "
            f"there are {', '.join(FAMILIES)}"
        )
    calibration = settings.pop("calibration", None)
    model = FAMILIES[family](**settings).read(checkpoint)
    model.calibration = Calibration(**calibration) if calibration else None
    model.eval()
    return model
