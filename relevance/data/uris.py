"""Datasets where they lie: a path is used as it is, a URI is fetched through fsspec."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec


@contextlib.contextmanager
def local_copies(uris: Sequence[str]) -> Iterator[list[Path]]:
    """Yield a local directory for each dataset; fetched ones last as long as the block.

    Raises:
        FileNotFoundError: A local path is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, uri in enumerate(uris):
            if "://" in uri:
                path = Path(folder) / str(number)
                files, root = fsspec.core.url_to_fs(uri)
                files.get(root.rstrip("/") + "/", f"{path}/", recursive=True)
            else:
                path = Path(uri)
                if not path.is_dir():
                    raise FileNotFoundError(f"{path}: no such dataset directory")
            paths.append(path)
        yield paths
