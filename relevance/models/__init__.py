"""Model families, and checkpoints: a directory of safetensors, tokenizer, config, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from relevance.files import new_dir, sha256
from relevance.models.base import Model
from relevance.models.bert import BertConfig
from relevance.models.sbert import SbertConfig

ModelConfig = BertConfig | SbertConfig

FAMILIES: Mapping[str, type[ModelConfig]] = {
    config.family: config for config in (BertConfig, SbertConfig)
}

MANIFEST = "manifest.json"


def save(model: Model, checkpoint: Path) -> None:
    """Write ``model`` as a new checkpoint directory, whole or not at all.

    Raises:
        FileExistsError: ``checkpoint`` is there already.
    """
    with new_dir(checkpoint) as partial:
        model.write(partial)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        hashes = {path.relative_to(partial).as_posix(): sha256(path) for path in files}
        (partial / MANIFEST).write_text(json.dumps(hashes, indent=2) + "\n")


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


def verify(checkpoint: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        FileNotFoundError: No manifest.
        ValueError: A listed file is missing or changed, or one is not listed.
    """
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        raise FileNotFoundError(f"{manifest}: missing; {checkpoint} is no checkpoint of ours")
    hashes = json.loads(manifest.read_text())
    found = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    for name in sorted(found - set(hashes) - {MANIFEST}):
        raise ValueError(f"{checkpoint / name}: not in {MANIFEST}; want only listed files")
    for name, wanted in hashes.items():
        if name not in found:
            raise ValueError(f"{checkpoint / name}: missing, but in {MANIFEST}")
        given = sha256(checkpoint / name)
        if given != wanted:
            raise ValueError(
                f"{checkpoint / name}: sha256 is {given[:12]}…, want {wanted[:12]}… "
                f"as in {MANIFEST}; the file was changed"
            )
