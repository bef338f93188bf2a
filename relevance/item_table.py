"""A catalogue's titles, prepared once for one checkpoint and memory-mapped by item id.

A directory: ``items.arrow`` (ids), ``keys.npy`` (sorted 64-bit hashes of the ids) and ``rows.npy``
(their rows), ``starts.npy``, ``is_cut.npy``, ``titles.npy`` (hashes of the titles), a file for each
column of ``relevance.titles.Titles``, and ``table.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from relevance.data.tables import data_hash, read_table
from relevance.files import new_dir, refuse_existing
from relevance.metrics import IntArray
from relevance.scorer import Scorer, open_scorer
from relevance.titles import Titles, title_hashes

_CHUNK = 10_000
_TABLE = "table.json"
_COLUMN = "column-{}.npy"


def build_item_table(checkpoint: Path, data: Path, out: Path) -> dict[str, float]:
    """Prepare every title of a dataset for ``checkpoint``.

    Args:
        checkpoint: What will score; the table serves it alone.
        data: Dataset directory.
        out: Directory to make.

    Returns:
        Items, tokens, and the share of titles that were cut.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: No checkpoint, or no products.
        ValueError: The checkpoint cannot be read, or two ids have one hash.
    """
    refuse_existing(out)
    # titles are read the same in any precision
    scorer = open_scorer(checkpoint, precision="fp32")
    products = read_table(data, "products", ["item_id", "title"])
    ids, titles = products.column("item_id").to_pylist(), products.column("title").to_pylist()
    keys = _hashes(ids)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    (same,) = np.nonzero(ordered[1:] == ordered[:-1])
    if len(same):
        one, other = (ids[order[same[0] + at]] for at in (0, 1))
        raise ValueError(f"items {one!r} and {other!r} have one 64-bit hash; rename one of them")
    chunks = range(0, len(titles), _CHUNK)
    parts = [
        scorer.prepare([title or "" for title in titles[at : at + _CHUNK]])
        for at in tqdm(chunks, desc="items", unit="chunk", mininterval=5)
    ]
    table = Titles.joined(parts) if parts else scorer.prepare([])
    with new_dir(out) as partial:
        schema = pa.schema([("item_id", pa.string())])
        with (
            pa.OSFile(str(partial / "items.arrow"), "wb") as file,
            pa.ipc.new_file(file, schema) as writer,
        ):
            writer.write_table(pa.table({"item_id": pa.array(ids, pa.string())}))
        _save(partial, "keys", ordered)
        _save(partial, "rows", order.astype(np.int64))
        _save(partial, "titles", title_hashes([title or "" for title in titles]))
        _save(partial, "starts", table.starts)
        _save(partial, "is_cut", table.is_cut)
        for name, column in table.columns.items():
            np.save(partial / _COLUMN.format(name), column, allow_pickle=False)
        content = {
            "version": scorer.version,
            "family": scorer.family,
            "data": data_hash(data),
            "items": len(ids),
            "columns": list(table.columns),
        }
        (partial / _TABLE).write_text(json.dumps(content, indent=2) + "\n")
    return {
        "items": float(len(ids)),
        "tokens": float(table.starts[-1]),
        "truncated": float(table.is_cut.mean()) if len(table) else 0.0,
    }


class ItemTable:
    """Prepared titles by item id; nothing is read before it is asked for."""

    def __init__(self, directory: Path, scorer: Scorer) -> None:
        """Open ``directory``.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It was made for another checkpoint.
        """
        file = directory / _TABLE
        if not file.is_file():
            raise FileNotFoundError(f"{directory}: no item table; make one with `items build`")
        content = json.loads(file.read_text())
        if content["version"] != scorer.version:
            raise ValueError(
                f"{directory}: made for checkpoint {content['version']}, and this one is "
                f"{scorer.version}; make another with `items build`"
            )
        self.directory = directory
        self._ids = pa.ipc.open_file(pa.memory_map(str(directory / "items.arrow"))).read_all()
        self._keys, self._rows, self.title_hashes, starts, is_cut = (
            _load(directory / f"{name}.npy")
            for name in ("keys", "rows", "titles", "starts", "is_cut")
        )
        columns = {name: _load(directory / _COLUMN.format(name)) for name in content["columns"]}
        self.titles = Titles(columns, starts, is_cut)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> list[str]:
        """Item ids, a row each."""
        found: list[str] = self._ids.column("item_id").to_pylist()
        return found

    def find(self, item_ids: Sequence[str]) -> IntArray:
        """Row of each item, -1 where it is unknown. [items]"""
        if not len(self):
            return np.full(len(item_ids), -1)
        asked = _hashes(item_ids)
        places = np.minimum(np.searchsorted(self._keys, asked), len(self) - 1)
        rows = np.asarray(self._rows[places])
        # a stranger's hash may be an item's
        found = self._ids.column("item_id").take(pa.array(rows)).to_pylist()
        is_known = np.array([a == b for a, b in zip(found, item_ids, strict=True)], bool)
        return np.where(is_known, rows, -1)


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    # lone surrogates, which JSON can carry, have no UTF-8
    digests = [blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for id in ids]
    return np.frombuffer(b"".join(digests), "<u8")


def _save(directory: Path, name: str, values: NDArray[np.generic]) -> None:
    np.save(directory / f"{name}.npy", values, allow_pickle=False)


def _load(file: Path) -> Any:
    return np.load(file, mmap_mode="r", allow_pickle=False)
