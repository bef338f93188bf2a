"""``querylift learn-terms`` and ``terms``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import (
    DEFAULT_RECIPE,
    AsJson,
    Data,
    OutDir,
    RecipeName,
    Settings,
    State,
    check_dataset,
    report,
    resolve,
)


def learn_terms(
    data: Data,
    out: OutDir,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Learn from the catalogue which words say what of an item."""
    chosen = resolve(recipe, settings)
    from relevance.data.tagger import learn_terms as step

    check_dataset(data)
    report(
        lambda: step(chosen.terms, data, out, seed=chosen.seed, state=state),
        as_json=as_json,
    )


def terms(
    texts: Annotated[list[str], typer.Argument(help="Titles or queries.", metavar="TEXT")],
    terms: Annotated[Path, typer.Option(help="What `learn-terms` made.", metavar="DIR")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list and nothing else.")
    ] = False,
) -> None:
    """Show which words of a text are terms, of which class, and who says so."""
    from relevance.data.tagger import load_terms
    from relevance.data.terms import CLASSES

    tagged = zip(texts, load_terms(terms).tag(texts), strict=True)
    if as_json:
        rows = [
            {
                "text": text,
                "terms": [
                    {
                        "start": term.start,
                        "end": term.end,
                        "words": text[term.start : term.end],
                        "class": CLASSES[term.term_class],
                        "source": term.source,
                    }
                    for term in found
                ],
            }
            for text, found in tagged
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for text, found in tagged:
        print(text)
        for term in found:
            words = text[term.start : term.end]
            print(f"  {words:<30}  {CLASSES[term.term_class]:<13}  {term.source}")
