"""Writing files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; rename it into place on success.

    Raises:
        FileExistsError: ``path`` is there already and ``replace`` is false.
        OSError: The disk is full; nothing is left behind.
    """
    if not replace:
        refuse_existing(path)
    partial = _partial(path)
    try:
        partial.touch()
        with _locked(partial), _named(path):
            yield partial
            _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_dir(path: Path) -> Iterator[Path]:
    """Yield a fresh directory beside ``path``; rename it into place on success.

    Raises:
        FileExistsError: ``path`` is there already.
        OSError: The disk is full; nothing is left behind.
    """
    refuse_existing(path)
    partial = _partial(path)
    try:
        partial.mkdir()
        with _locked(partial), _named(path):
            yield partial
            for file in [*partial.rglob("*"), partial]:
                _sync(file)
        refuse_existing(path)
        partial.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise unless ``path`` is free and can be made: results are never overwritten silently."""
    if os.path.lexists(path):
        raise FileExistsError(f"{path}: exists already; remove it or choose another --out")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{above}: a file, want a directory to write {path.name} into")


def sha256(path: Path) -> str:
    """Hex digest of one file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _partial(path: Path) -> Path:
    """A free name beside ``path``, after removing what killed runs left under such names.

    A writer holds a lock on its partial; the kernel drops the lock of a killed one. That needs
    no process ids, which repeat in containers, and no clock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.iterdir():
        if other.name.startswith(f".{path.name}.") and other.name.endswith(".partial"):
            with contextlib.suppress(OSError), _locked(other, must=True):
                shutil.rmtree(other) if other.is_dir() else other.unlink()
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


@contextlib.contextmanager
def _locked(path: Path, *, must: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on ``path``.

    Raises:
        OSError: With ``must``, somebody else holds it, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.nullcontext() if must else contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name ``path`` in a disk's error: libraries that write through descriptors do not.

    Those written in Rust (safetensors, tokenizers) raise no ``OSError`` either, but say its number.
    """
    try:
        yield
    except Exception as error:
        told = _RUST_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else told and int(told[1])
        if number in _DISK_ERRORS and str(path) not in str(error):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
