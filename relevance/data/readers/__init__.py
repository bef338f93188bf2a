"""Public layouts, as their owners publish them, into our tables.

What each reader takes, drops and decides is in ``docs/data.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb

from relevance.data.readers.chorus import read_chorus
from relevance.data.readers.esci import read_esci
from relevance.data.readers.placing import read_splits
from relevance.data.readers.ubi import read_ubi
from relevance.data.readers.wands import read_wands
from relevance.data.tables import DatasetCard, write_card
from relevance.files import new_dir

READERS: Mapping[str, Callable[[Path, Path, Mapping[str, str] | None, str], DatasetCard]] = {
    "esci": read_esci,
    "wands": read_wands,
    "chorus": read_chorus,
    "ubi": read_ubi,
}
"""Layout -> function (source, dataset under construction, splits, locale) -> card."""


def import_dataset(
    layout: str,
    source: Path,
    out: Path,
    *,
    locale: str = "us",
    splits: Path | None = None,
) -> None:
    """Read ``source``, which lies in ``layout``, into the new dataset ``out``.

    Args:
        layout: A name in ``READERS``.
        source: Directory with the owners' files.
        out: Dataset directory to make; whole or absent afterwards.
        locale: Which part of a dataset of several languages; only ``esci`` has any.
        splits: Parquet file with columns ``query`` and ``split`` that decides instead of the
            layout's own splits and of our hash.

    Raises:
        ValueError: Unknown layout or locale, or a file that breaks its layout: a column is
            missing or mistyped, a text is null, too long or not UTF-8, a label is unknown, an
            id is doubled or unmatched. The message names file, column, row and value.
        FileExistsError: ``out`` is there already.
        OSError: ``source`` or one of its files is missing, or the disk is full.
    """
    if layout not in READERS:
        raise ValueError(f"layout {layout!r}: unknown; there are {', '.join(READERS)}")
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: want a directory with the files of {layout}")
    given = None if splits is None else read_splits(splits)
    with new_dir(out) as partial:
        try:
            card = READERS[layout](source, partial, given, locale)
        except duckdb.Error as error:
            # inputs are checked before DuckDB sees them: what is left is memory and disk
            raise OSError(f"{source}: DuckDB: {' '.join(str(error).split())}") from error
        write_card(card, partial)
