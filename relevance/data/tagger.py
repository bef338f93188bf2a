"""Terms of a text, without any hub: the gazetteer where it knows, a small network elsewhere.

Source: ei-SRC, section 3.3, which takes its classes from a recogniser of Alibaba's own. Ours is
learnt from the catalogue at hand; see ``gazetteer`` and ``tagger_network``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from relevance.configs import TermsConfig
from relevance.data.gazetteer import (
    CORE,
    SPECIFICATION,
    Gazetteer,
    Product,
    Words,
    learn_gazetteer,
    split_words,
)
from relevance.data.tables import data_hash, read_table
from relevance.data.tagger_network import (
    TAGS,
    Example,
    NetworkConfig,
    Reader,
    TaggerNetwork,
    collate,
    decode,
    example,
    given_tags,
    phrases,
)
from relevance.data.terms import CLASSES, Term
from relevance.files import new_dir, refuse_existing
from relevance.manifest import verify, write_manifest

_CHUNK = 256
"""Texts that the network sees at once."""
_HELD_OUT = 20
"""One text in so many is kept from training, to measure on."""
_MEASURED = 2_000
_PHRASES, _WEIGHTS, _CONFIG = "gazetteer.tsv", "tagger.safetensors", "tagger.json"


class Tagger:
    """Gazetteer and network; without the network, where training was skipped, the former."""

    def __init__(
        self, gazetteer: Gazetteer, network: TaggerNetwork | None, confidence: float
    ) -> None:
        self.gazetteer = gazetteer
        self.network = network
        self._reader = Reader(network) if network is not None else None
        self.confidence = confidence

    def tag(self, texts: Sequence[str]) -> list[list[Term]]:
        """Terms of each text, in order, none overlapping another."""
        starts = range(0, len(texts), _CHUNK)
        return [terms for at in starts for terms in self._tag(texts[at : at + _CHUNK])]

    def _tag(self, texts: Sequence[str]) -> list[list[Term]]:
        found: list[list[Term]] = []
        left: list[tuple[Words, list[int]]] = []
        rows = []
        for row, text in enumerate(texts):
            words = split_words(text)
            matches = self.gazetteer.match(text, words)
            found.append([Term(m.start, m.end, m.term_class) for m in matches if m.term_class])
            tags = given_tags(words, matches)
            if 0 in tags:
                left.append((words, tags))
                rows.append(row)
        if self._reader is not None and left:
            said = self._reader.tag(left, self.confidence)
            for row, (words, _), tags in zip(rows, left, said, strict=True):
                if any(tags):
                    found[row] += _terms(words, tags, self.gazetteer.words)
                    found[row].sort(key=lambda term: term.start)
        return found

    def write(self, directory: Path) -> None:
        """Write the terms directory ``directory``; it must not exist yet."""
        with new_dir(directory) as partial:
            self.gazetteer.write(partial / _PHRASES)
            shape = asdict(self.network.config) if self.network else None
            content = {"classes": CLASSES, "confidence": self.confidence, "network": shape}
            (partial / _CONFIG).write_text(json.dumps(content, indent=2) + "\n")
            if self.network:
                tensors = {k: v.contiguous() for k, v in self.network.state_dict().items()}
                save_file(tensors, partial / _WEIGHTS)
            write_manifest(partial)


def _terms(words: Words, tags: Sequence[int], known: frozenset[str]) -> Iterator[Term]:
    """Terms that the tags of the words spell.

    A core that no phrase lists is one that the catalogue has no name for: a synonym, a slip. A word
    ``known`` from other phrases is no part of it but says which one: ``lip`` of ``lip beans``,
    where ``lip balm`` is listed. Tagged as the core it would make ``lip beans`` look like the
    coffee beans of a title.
    """
    at = 0
    while at < len(words):
        tag = tags[at]
        if not tag:
            at += 1
            continue
        first = last = at
        term_class = (tag + 1) // 2
        while last + 1 < len(words) and tags[last + 1] == 2 * term_class:
            last += 1
        while term_class == CORE and first < last and words[first].text in known:
            first += 1
        yield Term(words[first].start, words[last].end, term_class, "tagger")
        at = last + 1


def load_terms(directory: Path) -> Tagger:
    """Open what ``learn_terms`` or ``Tagger.write`` wrote.

    Raises:
        FileNotFoundError: ``directory`` is no terms directory.
        ValueError: A file was changed, its classes are not ours, or a tensor does not fit.
    """
    if not (directory / _CONFIG).is_file():
        raise FileNotFoundError(
            f"{directory / _CONFIG}: missing; make a terms directory with `querylift learn-terms`"
        )
    verify(directory)
    gazetteer = Gazetteer.read(directory / _PHRASES)
    path = directory / _CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        classes, confidence, shape = (content[k] for k in ("classes", "confidence", "network"))
        network = TaggerNetwork(NetworkConfig(**shape)) if shape else None
    except (ValueError, KeyError, TypeError) as error:
        wanted = ", ".join(field.name for field in fields(NetworkConfig))
        raise ValueError(
            f"{path}: damaged: {error!r}; want classes, confidence, network ({wanted})"
        ) from error
    if not isinstance(confidence, int | float):
        raise ValueError(f"{path}: confidence is {confidence!r}, want 0 to 1")
    if classes != list(CLASSES):
        raise ValueError(f"{path}: classes are {classes}, want {', '.join(CLASSES)}")
    if network:
        _fill(network, directory / _WEIGHTS)
    return Tagger(gazetteer, network, confidence)


def _fill(network: TaggerNetwork, path: Path) -> None:
    wanted = network.state_dict()
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not readable: {error}") from error
    for name in sorted(wanted.keys() | tensors.keys()):
        given = list(tensors[name].shape) if name in tensors else "missing"
        asked = list(wanted[name].shape) if name in wanted else "no such tensor"
        if given != asked:
            raise ValueError(f"{path}: {name} is {given}, want {asked} as {_CONFIG} says")
    network.load_state_dict(tensors)
    network.eval()


def learn_terms(
    config: TermsConfig, data: Path, out: Path, *, seed: int, state: Path | None = None
) -> dict[str, float]:
    """Learn the gazetteer of ``data``, then a tagger from what the gazetteer matches.

    Args:
        config: How much to read, and how to train.
        data: Dataset directory; titles, attributes, brands, categories and train queries count.
        out: Terms directory to make: ``gazetteer.tsv`` (class, phrase), ``tagger.safetensors``
            and ``tagger.json``.
        seed: Of the sample, the weights and the training.
        state: Directory of training states, for a killed run; default: beside ``out``.

    Returns:
        Phrases of each class, the last loss, and on held-out texts the precision and recall of
        the tagger on words that the gazetteer matches, while they are hidden from it;
        specifications, which it leaves to the patterns, not counted.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: A table is missing.
        ValueError: A table cannot be used, or no title holds any phrase.
    """
    # imported here, as the loop knows of models, and one of them of this module
    from relevance.training.loop import Stage, fingerprint, is_main_process, state_dir, train

    refuse_existing(out)
    rng = np.random.default_rng(seed)
    products, queries = _read(data, config.texts, rng)
    gazetteer = learn_gazetteer(products, queries, config.min_count)
    if not any(gazetteer.phrases.values()):
        raise ValueError(
            f"{data}: no phrase of an attribute, category or query is in {config.min_count} titles "
            "or more; want a catalogue with more products, or a lower terms.min_count"
        )
    numbers = {
        f"terms/{name}_phrases": float(sum(c == i for c in gazetteer.phrases.values()))
        for i, name in enumerate(CLASSES)
        if i
    }
    tagger = Tagger(gazetteer, None, config.confidence)
    if config.optim.steps:
        texts = [*(product.title for product in products), *queries]
        texts = [texts[i] for i in rng.permutation(len(texts))]
        examples = []
        for text in texts:
            words = split_words(text)
            if words:
                one = example(words, gazetteer.match(text, words))
                examples.append(replace(one, spans=phrases(one.tags, rng)))
        held_out, examples = (
            examples[::_HELD_OUT],
            [one for row, one in enumerate(examples) if row % _HELD_OUT],
        )
        torch.manual_seed(seed)
        network = TaggerNetwork(NetworkConfig())
        stage = Stage(
            "tagger",
            network,
            examples,
            lambda one: len(one.words),
            collate,
            lambda batch, _: network.loss(batch),
        )
        work = state_dir(out, state)
        key = fingerprint(config, seed, data_hash(data))
        numbers |= train(stage, config.optim, seed=seed, state=work, key=key)
        tagger = Tagger(gazetteer, network.to("cpu"), config.confidence)
        numbers |= _measure(tagger, held_out[:_MEASURED], rng)
        if is_main_process() and state is None:
            shutil.rmtree(work, ignore_errors=True)
    if is_main_process():
        tagger.write(out)
    return numbers


def _read(data: Path, limit: int, rng: np.random.Generator) -> tuple[list[Product], list[str]]:
    """At most ``limit`` products and as many train queries, chosen at random."""
    rows = read_table(data, "products", ["title", "category", "brand", "attributes"])
    if len(rows) > limit:
        rows = rows.take(np.sort(rng.choice(len(rows), limit, replace=False)))
    products = [
        Product(row["title"], row["category"], row["brand"], row["attributes"] or ())
        for row in rows.to_pylist()
    ]
    table = read_table(data, "queries", ["query", "split"]).to_pydict()
    pairs = zip(table["query"], table["split"], strict=True)
    queries = [query for query, split in pairs if split == "train"]
    if len(queries) > limit:
        queries = [queries[i] for i in np.sort(rng.choice(len(queries), limit, replace=False))]
    return products, queries


def _measure(
    tagger: Tagger, examples: Sequence[Example], rng: np.random.Generator
) -> dict[str, float]:
    """How often the tagger names the gazetteer's class of a phrase that is hidden from it."""
    assert tagger.network is not None
    batch = collate(examples)
    tags = batch["tags"].numpy()
    is_matched = (tags > 0) & (tags < TAGS) & ((tags + 1) // 2 != SPECIFICATION)
    luck = rng.random(tags.shape)
    hidden = is_matched & (
        np.take_along_axis(luck, batch["spans"].numpy() % tags.shape[1], 1) < 0.3
    )
    with torch.inference_mode():
        logits = tagger.network(batch, torch.from_numpy(hidden))
    asked = hidden | (tags == 0)
    # a column more, so that no text runs on into the next
    places = np.flatnonzero(np.pad(asked, ((0, 0), (0, 1))))
    found = decode(logits[asked], np.diff(places, prepend=-1) == 1, tagger.confidence)
    said = (found[hidden[asked]] + 1) // 2
    truth = (tags[hidden] + 1) // 2
    right = int((said == truth).sum())
    return {
        "tagger/hidden_precision": right / max(int((said > 0).sum()), 1),
        "tagger/hidden_recall": right / max(len(truth), 1),
    }
