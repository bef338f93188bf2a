"""Term classes on the generated shop, where the truth is known: precision and recall by class.

    python benchmarks/term_tags.py SHOP TERMS

``SHOP`` is a dataset of ``querylift market``; ``TERMS`` is a terms directory that ``querylift
learn-terms`` made of it or, for what a shop never saw, of another. The page goes to standard
output.

The truth is the shop's lexicon, which neither gazetteer nor tagger reads: a word of a title or a
query has the class of the longest phrase of its category that holds it, synonyms included, and in
queries slips of the finger and compounds run together as well. Brands and words of sale are none.

``term_sample.txt`` beside this file holds titles and queries that were written and tagged by hand:
the page compares each of them, so that anybody can check it.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import torch

from relevance.data.gazetteer import split_words
from relevance.data.market_lexicon import (
    HOMONYMS,
    MINIMUM_ORDERS,
    PROMOTIONS,
    SCALES,
    SYNONYMS,
    Category,
    categories,
    plural,
)
from relevance.data.tables import read_table
from relevance.data.tagger import Tagger, load_terms
from relevance.data.terms import CLASSES, Term, class_id

SAMPLE = Path(__file__).with_name("term_sample.txt")
_MARK = re.compile(r"\[(?P<words>[^\[\]]+) (?P<name>\w+)\]")
TITLES = 5_000
LONGEST = 6

Phrases = Mapping[tuple[str, ...], int]


def truth(category: Category, *, roughened: bool) -> dict[tuple[str, ...], int]:
    """Words of every phrase of ``category`` with its class, ``roughened`` as queries are."""
    phrases: dict[tuple[str, ...], int] = {}

    def put(texts: Iterable[str], name: str) -> None:
        for text in texts:
            for form in _rough(text) if roughened else [text]:
                words = tuple(word.text for word in split_words(form))
                phrases.setdefault(words, class_id(name))

    for values in PROMOTIONS:
        put(values, "none")
    put(category.brands, "none")
    names = [name for core in category.cores for name in (core.name, *core.synonyms)]
    put([*names, *map(plural, names)], "core")
    for scale in {scale for core in category.cores for scale in core.scales}:
        for forms in SCALES[scale]:
            put(forms, "specification")
    for forms in MINIMUM_ORDERS:
        put(forms, "specification")
    for name in ("material", "function", "usage", "style"):
        for value in getattr(category, f"{name}s"):
            put((value, *SYNONYMS.get(value, ())), name)
    if roughened:
        put([*HOMONYMS, *map(plural, HOMONYMS)], "core")
    return phrases


def _rough(text: str) -> Iterator[str]:
    """``text``, run together, and with every slip that queries may have; see ``market_queries``."""
    yield text
    if " " in text:
        yield text.replace(" ", "", 1)
    tokens = text.split()
    for at, word in enumerate(tokens):
        if len(word) > 4 and word.isalpha():
            for i in range(1, len(word) - 1):
                swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
                for slip in (word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:], swapped):
                    yield " ".join([*tokens[:at], slip, *tokens[at + 1 :]])


def true_classes(text: str, phrases: Phrases) -> list[tuple[int, tuple[str, ...]]]:
    """Class of each word of ``text``, and the phrase that says so."""
    words = [word.text for word in split_words(text)]
    found: list[tuple[int, tuple[str, ...]]] = []
    while len(found) < len(words):
        at = len(found)
        for size in range(min(LONGEST, len(words) - at), 0, -1):
            phrase = tuple(words[at : at + size])
            if phrase in phrases:
                found += [(phrases[phrase], phrase)] * size
                break
        else:
            found.append((0, ()))
    return found


def said_classes(text: str, terms: Sequence[Term]) -> list[int]:
    """Class of each word of ``text`` after ``terms``."""
    return [
        next((t.term_class for t in terms if t.start < word.end and word.start < t.end), 0)
        for word in split_words(text)
    ]


class Counts:
    """Words told rightly, told, and there, by class; and those of phrases nobody listed."""

    def __init__(self) -> None:
        self.right: Counter[int] = Counter()
        self.told: Counter[int] = Counter()
        self.there: Counter[int] = Counter()
        self.unseen_right: Counter[int] = Counter()
        self.unseen: Counter[int] = Counter()

    def add(self, true: int, said: int, *, is_unseen: bool) -> None:
        """Count one word."""
        self.told[said] += 1
        self.there[true] += 1
        self.right[true] += true == said
        if is_unseen:
            self.unseen[true] += 1
            self.unseen_right[true] += true == said

    def row(self, classes: Iterable[int]) -> tuple[float, float, float]:
        """Precision, recall, and recall of unseen phrases over ``classes``."""
        classes = list(classes)

        def share(part: Counter[int], whole: Counter[int]) -> float:
            total = sum(whole[c] for c in classes)
            return sum(part[c] for c in classes) / total if total else float("nan")

        return (
            share(self.right, self.told),
            share(self.right, self.there),
            share(self.unseen_right, self.unseen),
        )


def count(
    tagger: Tagger, texts: Sequence[str], categories_: Sequence[int], truths: Sequence[Phrases]
) -> Counts:
    """Compare what ``tagger`` says of ``texts`` with the truth of their categories."""
    counts = Counts()
    for text, category, terms in zip(texts, categories_, tagger.tag(texts), strict=True):
        true = true_classes(text, truths[category])
        for (of_word, phrase), said in zip(true, said_classes(text, terms), strict=True):
            joined = " ".join(phrase)
            whole = tagger.gazetteer.match(joined, split_words(joined))
            is_listed = len(whole) == 1 and whole[0].term_class == of_word
            counts.add(of_word, said, is_unseen=bool(of_word) and not is_listed)
    return counts


def measure(shop: Path, tagger: Tagger) -> dict[str, Counts]:
    """Counts for titles and queries, by the gazetteer alone and with the tagger."""
    shelves = categories()
    number = {category.name: i for i, category in enumerate(shelves)}
    of_core = {core.name: i for i, category in enumerate(shelves) for core in category.cores}
    products = read_table(shop, "products", ["title", "category"]).slice(0, TITLES).to_pydict()
    queries = read_table(shop, "queries", ["query"]).column("query").to_pylist()
    cores = pq.read_table(shop / "intents.parquet").column("cores").to_pylist()
    groups = {
        "titles": (products["title"], [number[name] for name in products["category"]], False),
        "queries": (queries, [of_core[some[0]] for some in cores], True),
    }
    alone = Tagger(tagger.gazetteer, None, tagger.confidence)
    found = {}
    for name, (texts, of_text, roughened) in groups.items():
        truths = [truth(category, roughened=roughened) for category in shelves]
        found[f"{name}, gazetteer"] = count(alone, texts, of_text, truths)
        found[f"{name}, gazetteer and tagger"] = count(tagger, texts, of_text, truths)
    return found


def read_sample(path: Path) -> list[tuple[str, list[int]]]:
    """Texts of a sample tagged by hand, with the class of each word."""
    sample = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        classes = []
        at = 0
        for mark in _MARK.finditer(line):
            classes += [0] * len(split_words(line[at : mark.start()]))
            classes += [class_id(mark["name"])] * len(split_words(mark["words"]))
            at = mark.end()
        classes += [0] * len(split_words(line[at:]))
        sample.append((_MARK.sub(r"\g<words>", line), classes))
    return sample


def count_sample(tagger: Tagger, sample: Sequence[tuple[str, Sequence[int]]]) -> Counts:
    """Compare what ``tagger`` says of a sample with the hand's classes."""
    counts = Counts()
    for text, true in sample:
        for of_word, said in zip(true, said_classes(text, tagger.tag([text])[0]), strict=True):
            counts.add(of_word, said, is_unseen=False)
    return counts


def sample_page(tagger: Tagger) -> Iterator[str]:
    """Lines of Markdown: what the gazetteer and the tagger say of each text of the sample."""
    sample = read_sample(SAMPLE)
    yield f"\nTagged by hand, {len(sample)} texts (`benchmarks/term_sample.txt`):\n"
    yield "| | words | precision | recall |"
    yield "|---|---|---|---|"
    all_ = range(1, len(CLASSES))
    alone = Tagger(tagger.gazetteer, None, tagger.confidence)
    for name, one in (("gazetteer", alone), ("gazetteer and tagger", tagger)):
        counts = count_sample(one, sample)
        precision, recall, _ = counts.row(all_)
        yield f"| {name} | {sum(counts.there[c] for c in all_)} | {precision:.3f} | {recall:.3f} |"
    yield "\nWords of which hand and tagger say different things:\n"
    yield "| text | word | by hand | tagger |"
    yield "|---|---|---|---|"
    for text, true in sample:
        said = said_classes(text, tagger.tag([text])[0])
        for word, by_hand, by_tagger in zip(split_words(text), true, said, strict=True):
            if by_hand != by_tagger:
                classes = f"{CLASSES[by_hand]} | {CLASSES[by_tagger]}"
                yield f"| {text} | {text[word.start : word.end]} | {classes} |"


def page(found: Mapping[str, Counts]) -> Iterator[str]:
    """Lines of Markdown tables, one a group."""
    for name, counts in found.items():
        yield f"\n{name}:\n"
        yield "| class | words | precision | recall | unlisted words | recall of these |"
        yield "|---|---|---|---|---|---|"
        all_ = range(1, len(CLASSES))
        rows = [*((CLASSES[c], [c]) for c in all_), ("all", list(all_))]
        for label, classes in rows:
            precision, recall, unseen = counts.row(classes)
            words = sum(counts.there[c] for c in classes)
            hidden = sum(counts.unseen[c] for c in classes)
            yield (
                f"| {label} | {words:,} | {precision:.3f} | {recall:.3f} | {hidden:,} | "
                f"{unseen:.3f} |"
            )


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop", type=Path)
    parser.add_argument("terms", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tagger = load_terms(arguments.terms)
    titles = read_table(arguments.shop, "products", ["title"]).column("title").to_pylist()
    start = time.process_time()
    tagger.tag(titles)
    rate = len(titles) / (time.process_time() - start)
    for line in (*page(measure(arguments.shop, tagger)), *sample_page(tagger)):
        print(line)
    print(f"\n{rate:,.0f} titles a second of processor time; {platform.platform()}.")


if __name__ == "__main__":
    main()
