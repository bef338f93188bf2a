"""The manifest of a checkpoint: the sha256 of every file, so that no changed byte is served."""

from __future__ import annotations

import json
from pathlib import Path

from relevance.files import sha256

MANIFEST = "manifest.json"


def write_manifest(checkpoint: Path) -> None:
    """List every file of ``checkpoint`` with its hash."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    hashes = {path.relative_to(checkpoint).as_posix(): sha256(path) for path in files}
    (checkpoint / MANIFEST).write_text(json.dumps(hashes, indent=2) + "\n")


def verify(checkpoint: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        FileNotFoundError: No manifest.
        ValueError: A listed file is missing or changed, or one is not listed.
    """
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        raise FileNotFoundError(f"{manifest}: missing; {checkpoint} is no checkpoint of ours")
    try:
        hashes = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest}: damaged: {error}") from error
    if not isinstance(hashes, dict):
        raise ValueError(f"{manifest}: want a JSON object of file names and sha256s")
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
