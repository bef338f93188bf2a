"""Datasets where they lie: directories are used in place, URIs are fetched through pyarrow."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from relevance.data.tables import TABLES, merge, read_card
from relevance.files import new_dir

_FILES = ("dataset.json", *(f"{table}.parquet" for table in TABLES))


def gather(sources: Sequence[str], out: Path) -> None:
    """Make one dataset of ``sources``: a single one stays byte for byte, several are joined.

    Args:
        sources: Directories, or URIs of directories that pyarrow opens: ``s3://``, ``gs://``,
            ``hdfs://``, ``file://``.
        out: Dataset directory to make.

    Raises:
        FileNotFoundError: A source is no dataset.
        ValueError: No sources, or a URI that pyarrow cannot open.
    """
    if not sources:
        raise ValueError("no data: want one dataset directory or more")
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside out, so that fetched tables are linked and not copied once more
    with _local_copies(sources, out.parent) as directories:
        if len(directories) > 1:
            merge(directories, out)
            return
        read_card(directories[0])
        with new_dir(out) as partial:
            for name in _FILES:
                if (directories[0] / name).exists():
                    _link(directories[0] / name, partial / name)


@contextlib.contextmanager
def _local_copies(sources: Sequence[str], beside: Path) -> Iterator[list[Path]]:
    """A local directory for each source; fetched ones last as long as the block."""
    with tempfile.TemporaryDirectory(dir=beside, prefix=".fetched-") as scratch:
        yield [
            _fetch(source, Path(scratch) / str(number)) if "://" in source else Path(source)
            for number, source in enumerate(sources)
        ]


def _fetch(uri: str, target: Path) -> Path:
    try:
        files, root = fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{uri}: {error}; want a directory, or a URI like s3://…") from error
    target.mkdir()
    for name in _FILES:
        place = f"{root.rstrip('/')}/{name}"
        if files.get_file_info(place).type == fs.FileType.File:
            fs.copy_files(place, str(target / name), source_filesystem=files)
    if not (target / "dataset.json").exists():
        raise FileNotFoundError(f"{uri}/dataset.json: missing; {uri} is no dataset")
    return target


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
