"""``querylift items``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import AsJson, Data, OutDir, check_dataset, report


def build(
    model: Annotated[
        Path, typer.Option(help="Checkpoint that will score the items.", metavar="DIR")
    ],
    data: Data,
    out: OutDir,
    as_json: AsJson = False,
) -> None:
    """Prepare a catalogue's titles for a scorer, so that they can be scored by item id."""
    check_dataset(data)
    from relevance.item_table import build_item_table

    report(lambda: build_item_table(model, data, out), as_json=as_json)
