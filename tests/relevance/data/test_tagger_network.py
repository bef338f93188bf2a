"""The trained network in NumPy says what the network itself does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relevance.data.gazetteer import Gazetteer, split_words
from relevance.data.tagger_network import (
    NetworkConfig,
    Reader,
    TaggerNetwork,
    collate,
    decode,
    example,
    given_tags,
)

WORDS = "red wood lamp lamps couch inox 12v 500 ml for acme süß men's x".split()
GAZETTEER = Gazetteer({"red": 5, "wood lamp": 6, "lamp": 6, "acme": 0})

texts = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)


@pytest.fixture(scope="module")
def network() -> TaggerNetwork:
    torch.manual_seed(0)
    network = TaggerNetwork(NetworkConfig())
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return network.eval()


@settings(max_examples=60, deadline=None)
@given(some=st.lists(texts, min_size=1, max_size=8))
def test_unmatched_words_get_the_tags_of_the_padded_network(
    network: TaggerNetwork, some: list[str]
) -> None:
    split = [split_words(text) for text in some]
    matches = [GAZETTEER.match(*pair) for pair in zip(some, split, strict=True)]
    batch = collate([example(*pair) for pair in zip(split, matches, strict=True)])
    with torch.inference_mode():
        logits = network(batch)
    wanted = []
    for row, words in enumerate(split):
        asked = (batch["tags"][row] == 0).numpy()
        tags = np.zeros(len(asked), np.int64)
        runs_on = np.diff(np.flatnonzero(asked), prepend=-1) == 1
        tags[asked] = decode(logits[row][asked], runs_on, 0.2)
        wanted.append(tags[: len(words)].tolist())
    given_ = [
        (words, given_tags(words, found)) for words, found in zip(split, matches, strict=True)
    ]
    assert Reader(network).tag(given_, 0.2) == wanted


@given(text=st.text(max_size=60) | texts)
def test_a_text_has_the_words_that_stand_in_it(text: str) -> None:
    words = split_words(text)
    assert [text[word.start : word.end].casefold() for word in words] == words.texts
    assert [words[at] for at in range(len(words))] == list(words)
    assert words.starts == sorted(words.starts)


@given(text=st.text(st.sampled_from("0123456789.,-/ xX\"'imoqMLkgKGVcCpsSEizeudh"), max_size=25))
def test_units_are_the_same_in_small_letters(text: str) -> None:
    # a letter beyond ASCII takes the other way
    plain = Gazetteer({}).match(text, split_words(text))
    assert Gazetteer({}).match(f"{text} é", split_words(f"{text} é")) == plain
