"""What may be loaded: data alone, unchanged, and written by us."""

from __future__ import annotations

import json
from pathlib import Path

from relevance.manifest import verify

_PLAIN = (".json", ".safetensors", ".tsv", ".txt")
"""Files of a checkpoint: numbers and texts. Pickles and Python files run code when they are read,
and go by too many names to list."""


def check_checkpoint(checkpoint: Path) -> None:
    """Look at every file before anything is loaded.

    Raises:
        FileNotFoundError: No directory, or one without a manifest.
        ValueError: A file that could hold code, a changed byte, or no model of ours.
    """
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint}: missing; want the directory of a checkpoint")
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.suffix not in _PLAIN:
            raise ValueError(
                f"{path}: refused, it could hold code; want only files in {', '.join(_PLAIN)}"
            )
    verify(checkpoint)
    for path in sorted(checkpoint.rglob("*config.json")):
        config = _read(path)
        # transformers runs what this names, if ever asked to trust it
        if "auto_map" in config:
            raise ValueError(f"{path}: refused, auto_map names code to run")
    settings = _read(checkpoint / "config.json").get("querylift")
    if not isinstance(settings, dict) or "family" not in settings:
        raise ValueError(
            f"{checkpoint / 'config.json'}: names no model family of ours; "
            "want a checkpoint of `distill` or `finetune`"
        )


def _read(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: want a JSON object")
    return config
