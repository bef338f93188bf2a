"""What a tagger learnt from a small generated shop says, and what it refuses to open."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.term_tags import SAMPLE, count_sample, read_sample
from relevance.configs import OptimConfig, TermsConfig
from relevance.data.gazetteer import (
    Gazetteer,
    Product,
    attribute_class,
    learn_gazetteer,
    split_words,
)
from relevance.data.market import MarketConfig, make_market
from relevance.data.tagger import Tagger, learn_terms, load_terms
from relevance.data.tagger_network import TAGS, decode
from relevance.data.terms import CLASSES, class_id
from relevance.manifest import write_manifest

CONFIG = TermsConfig(
    optim=OptimConfig(steps=300, batch_size=64, lr=1.5e-2, weight_decay=0.0, precision="fp32")
)
SHORT = TermsConfig(
    texts=800, optim=OptimConfig(steps=3, batch_size=8, lr=1e-2, weight_decay=0.0, precision="fp32")
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("terms") / "shop"
    make_market(MarketConfig(products=6_000, queries=300, searches=0, judgments=0), data)
    return data


@pytest.fixture(scope="module")
def learnt(shop: Path) -> tuple[Path, dict[str, float]]:
    out = shop.with_name("terms")
    return out, learn_terms(CONFIG, shop, out, seed=0)


@pytest.fixture(scope="module")
def tagger(learnt: tuple[Path, dict[str, float]]) -> Tagger:
    return load_terms(learnt[0])


@pytest.fixture
def terms(learnt: tuple[Path, dict[str, float]], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(learnt[0], tmp_path / "terms"))


def said(tagger: Tagger, text: str, source: str | None = None) -> dict[str, str]:
    return {
        text[term.start : term.end]: CLASSES[term.term_class]
        for term in tagger.tag([text])[0]
        if source in (None, term.source)
    }


KNOWN = {
    "Alvia Stainless Steel Water Bottle Leak Proof 500 ml For Camping": {
        "Stainless Steel": "material",
        "Water Bottle": "core",
        "Leak Proof": "function",
        "500 ml": "specification",
        "Camping": "usage",
    },
    "velvet sofa 3-seater modern": {
        "velvet": "material",
        "sofa": "core",
        "3-seater": "specification",
        "modern": "style",
    },
    "sofas for living room": {"sofas": "core", "living room": "usage"},
    'Monitor 15" backlit': {
        "Monitor": "core",
        '15"': "specification",
        "backlit": "function",
    },
    "drinking glass": {"drinking glass": "core"},
    "glass flower pot": {"glass": "material", "flower pot": "core"},
    "led strip 12v 5m": {"led strip": "core", "12v": "specification", "5m": "specification"},
    "hoodie size xl pack of 2": {
        "hoodie": "core",
        "size xl": "specification",
        "pack of 2": "specification",
    },
    "moq 100 pcs cable ties": {"moq 100 pcs": "specification", "cable ties": "core"},
    "kids printed backpack": {"kids": "usage", "printed": "style", "backpack": "core"},
}


@pytest.mark.parametrize("text", KNOWN)
def test_the_gazetteer_tags_the_longest_phrase_it_learnt(tagger: Tagger, text: str) -> None:
    assert said(tagger, text, "gazetteer") == KNOWN[text]


UNLISTED = [
    ("hovqua cotton water resistant slim fit jeans for work size m", "resistant", "function"),
    ("Alvia Aluminium Water Bottle Leak Proof Plain For Home 500 Ml", "Aluminium", "material"),
    ("hovqua poly quick dry jeans for gym size m", "poly", "material"),
    ("10 inch laptop silicone cordless mini for school 64 gb", "cordless", "function"),
    ("Couch Velvet Foldable Vintage 2 Seater For Office", "Couch", "core"),
    ("safety boots", "boots", "core"),
    ("alvia polyester breathable hoodie for workout size l", "workout", "usage"),
    ("morlia plastic wireless keyboard for workplace 10 inch", "workplace", "usage"),
    ("Jortex Clear Silicone Shockproof Phone Case For Trip 7 Inch", "Trip", "usage"),
]


@pytest.mark.parametrize(("text", "word", "name"), UNLISTED)
def test_the_network_tags_words_that_no_attribute_names(
    tagger: Tagger, text: str, word: str, name: str
) -> None:
    assert word.casefold() not in tagger.gazetteer.phrases
    found = said(tagger, text, "tagger")
    assert [found[phrase] for phrase in found if word in phrase.split()] == [name]


def test_brands_and_small_words_have_no_class(tagger: Tagger) -> None:
    for text in ("alvia water bottle for home", "Water Bottle by Alvia"):
        words = {word.casefold() for phrase in said(tagger, text) for word in phrase.split()}
        assert not words & {"alvia", "for", "by"}


def test_texts_tagged_by_hand_are_mostly_tagged_alike(tagger: Tagger) -> None:
    sample = read_sample(SAMPLE)
    assert sample[0][0].startswith("Foldable wooden office chair with")
    assert [CLASSES[c] for c in sample[0][1][:5]] == [
        "function",
        "material",
        "core",
        "core",
        "none",
    ]
    all_ = range(1, len(CLASSES))
    precision, recall, _ = count_sample(tagger, sample).row(all_)
    alone = Tagger(tagger.gazetteer, None, tagger.confidence)
    _, recall_alone, _ = count_sample(alone, sample).row(all_)
    assert precision > 0.9
    assert recall > recall_alone + 0.03
    assert recall_alone > 0.6


def test_what_is_hidden_is_found_again_by_its_neighbours(
    learnt: tuple[Path, dict[str, float]],
) -> None:
    numbers = learnt[1]
    assert numbers["tagger/hidden_precision"] > 0.85
    assert numbers["tagger/hidden_recall"] > 0.5
    assert all(numbers[f"terms/{name}_phrases"] > 20 for name in CLASSES[1:])


def test_terms_are_in_order_apart_and_the_same_in_any_company(tagger: Tagger) -> None:
    texts = [*KNOWN, *(text for text, _, _ in UNLISTED), "", "  ", "???", "x" * 5_000]
    together = tagger.tag(texts)
    assert together == [tagger.tag([text])[0] for text in texts]
    for text, terms in zip(texts, together, strict=True):
        cuts = [cut for term in terms for cut in (term.start, term.end)]
        assert cuts == sorted(cuts)
        assert all(0 < term.term_class < len(CLASSES) for term in terms)
        assert not cuts or cuts[-1] <= len(text)


def test_the_same_seed_learns_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        learn_terms(SHORT, shop, tmp_path / name, seed=3)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["gazetteer.tsv", "manifest.json", "tagger.json", "tagger.safetensors"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_steps_leave_the_gazetteer_alone(shop: Path, tmp_path: Path) -> None:
    numbers = learn_terms(TermsConfig(optim=OptimConfig(steps=0)), shop, tmp_path / "t", seed=0)
    tagger = load_terms(tmp_path / "t")
    assert tagger.network is None
    assert not any(name.startswith("tagger/") for name in numbers)
    assert said(tagger, "inox water bottle") == {"water bottle": "core"}


def test_a_copy_tags_alike(tagger: Tagger, tmp_path: Path) -> None:
    tagger.write(tmp_path / "copy")
    texts = [text for text, _, _ in UNLISTED]
    assert load_terms(tmp_path / "copy").tag(texts) == tagger.tag(texts)
    with pytest.raises(FileExistsError):
        tagger.write(tmp_path / "copy")


def test_a_changed_byte_is_refused(terms: Path) -> None:
    (terms / "gazetteer.tsv").write_text("core\tsofa\n")
    with pytest.raises(ValueError, match=r"gazetteer\.tsv: sha256"):
        load_terms(terms)


def test_a_directory_without_terms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="learn-terms"):
        load_terms(tmp_path)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("colour\tred", "line 1: term class 'colour'"), ("core sofa", "want class, tab, phrase")],
)
def test_a_bad_line_of_the_gazetteer_is_named(terms: Path, line: str, wanted: str) -> None:
    (terms / "gazetteer.tsv").write_text(f"{line}\n")
    write_manifest_again(terms)
    with pytest.raises(ValueError, match=wanted):
        load_terms(terms)


def test_a_tensor_that_does_not_fit_is_named(terms: Path) -> None:
    path = terms / "tagger.safetensors"
    tensors = load_file(path)
    tensors["tags.bias"] = torch.zeros(5)
    path.unlink()
    save_file(tensors, path)
    write_manifest_again(terms)
    with pytest.raises(ValueError, match=r"tags\.bias is \[5\], want \[13\]"):
        load_terms(terms)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"classes": ["none", "core"]}, "classes are"),
        ({"network": {"layers": 3}}, "buckets, width, hidden"),
        ({"confidence": "high"}, "confidence is 'high'"),
    ],
)
def test_a_config_of_another_shape_is_refused(
    terms: Path, change: dict[str, object], wanted: str
) -> None:
    path = terms / "tagger.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    write_manifest_again(terms)
    with pytest.raises(ValueError, match=wanted):
        load_terms(terms)


def write_manifest_again(terms: Path) -> None:
    (terms / "manifest.json").unlink()
    write_manifest(terms)


def test_decoded_tags_never_continue_a_term_that_is_not_there() -> None:
    torch.manual_seed(0)
    runs_on = torch.rand(600).numpy() < 0.8
    found = decode(4 * torch.randn(600, TAGS), runs_on, 0.2).tolist()
    assert any(tag and tag % 2 == 0 for tag in found)
    for before, tag, is_next in zip([0, *found], found, runs_on, strict=False):
        assert tag % 2 or not tag or (is_next and before in (tag - 1, tag))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Product colour", "style"),
        ("Material", "material"),
        ("jacket material", "material"),
        ("Capacity", "specification"),
        ("storage", "specification"),
        ("package weight", "none"),
        ("Product type", "core"),
        ("core", "core"),
        ("Suitable for", "usage"),
        ("connectivity technology", "function"),
        ("operating temperature t t", "none"),
        ("foo", None),
    ],
)
def test_attribute_names_tell_classes(name: str, wanted: str | None) -> None:
    assert attribute_class(name) == wanted


UNITS: Sequence[tuple[str, list[str]]] = [
    ("12v adapter", ["12v"]),
    ("bottle 500 ml blue", ["500 ml"]),
    ("3.5mm jack", ["3.5mm"]),
    ("tv 15 inch", ["15 inch"]),
    ("shirt size m", ["size m"]),
    ("pack of 6 cups", ["pack of 6"]),
    ("moq 100", ["moq 100"]),
    ("sign 18''x24'' x 4mm", ["18''x24'' x 4mm"]),
    ("paper 10x13", ["10x13"]),
    ("toner 2 pc(s) black", ["2 pc(s)"]),
    ("3 in 1 cable", []),
    ("iphone 11", []),
    ("50% off", []),
    ("Toshiba 128gb 5 V", ["128gb", "5 V"]),
]


@pytest.mark.parametrize(("text", "wanted"), UNITS)
def test_numbers_with_units_are_specifications(text: str, wanted: list[str]) -> None:
    matches = Gazetteer({}).match(text, split_words(text))
    assert [text[match.start : match.end] for match in matches] == wanted
    assert {match.term_class for match in matches} <= {class_id("specification")}


def test_cores_are_the_last_words_where_no_attribute_names_them() -> None:
    colours = ("red", "white", "black", "green")
    kinds = [("floor", "lamp"), ("desk", "lamp"), ("wall", "lamp"), ("steel", "kettle")]
    kinds += [("tea", "kettle"), ("iron", "kettle"), ("whistling", "kettle"), ("egg", "kettle")]
    products = [
        Product(f"Acme {' '.join(kind)} {colour} 12v for home", None, "Acme", [("Colour", colour)])
        for colour in colours
        for kind in kinds
    ]
    phrases = learn_gazetteer(products, ["desk lamp"], 3).phrases
    assert {phrase for phrase, c in phrases.items() if c == class_id("core")} >= {"lamp", "kettle"}
    assert phrases["red"] == class_id("style")
    assert phrases["home"] == class_id("usage")
    assert phrases["acme"] == 0


def test_a_phrase_in_too_few_titles_is_left_out() -> None:
    products = [
        Product(f"lamp {n} teal", None, None, [("colour", "teal"), ("core", "lamp")])
        for n in range(2)
    ]
    assert learn_gazetteer(products, [], 3).phrases == {}
    assert set(learn_gazetteer(products, [], 2).phrases) == {"teal", "lamp"}
