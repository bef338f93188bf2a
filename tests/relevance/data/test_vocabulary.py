"""The vocabulary step: what is counted, learnt, added and measured."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)

from relevance.configs import VocabularyConfig
from relevance.data import wordpiece
from relevance.data.tables import TABLES, DatasetCard, table_path, write_card, write_table
from relevance.data.vocabulary import _new_words, extend_vocabulary, format_table
from relevance.data.words import PUNCTUATION, count_words, open_texts

WORDS = [
    "100%",
    "12v",
    "3.5mm",
    "1/2",
    "wi-fi",
    "bluetooth",
    '15.6"',
    "men's",
    "naive",
    "ωx9",
    "m²",
]
_PARTS = [*WORDS, "BLUETOOTH", "naïve", "blue", "tooth", "s", "cotton", "電源", "[UNK]", "[MASK]"]
_BETWEEN = [*" \t\n\u200b\u00a0\u0301", *"™®😀…İ-/,."]
PRODUCT_TEXT = st.lists(st.sampled_from([*_PARTS, *_BETWEEN]), max_size=12).map("".join)


@functools.cache
def tokenizers() -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """A small base that splits WORDS, and its extension."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789()%./-'\",ω²™®電源"
    texts = [*characters, "blue cotton tooth men", "blue cotton tooth men"]
    base = wordpiece.learn(lambda: texts, 1_000)
    assert list(wordpiece.split_words(base, WORDS)) == WORDS
    return base, wordpiece.extend(base, WORDS)


def make_dataset(
    directory: Path,
    titles: Sequence[str],
    queries: Sequence[tuple[str, str, int | None]] = (("12v lamp", "train", None),),
) -> Path:
    """A dataset of these titles and (query, split, searches), each query judged on each title."""
    directory.mkdir(parents=True)
    write_card(DatasetCard("test", True, "Apache-2.0", {}), directory)
    items = [f"item:{number}" for number in range(len(titles))]
    products = {field.name: pa.nulls(len(items), field.type) for field in TABLES["products"]}
    products |= {"item_id": pa.array(items), "title": pa.array(titles, pa.string())}
    write_table(pa.table(products), directory, "products")
    ids = [f"query:{number}" for number in range(len(queries))]
    rows = {
        "query_id": pa.array(ids, pa.string()),
        "query": pa.array([query for query, _, _ in queries], pa.string()),
        "split": pa.array([split for _, split, _ in queries], pa.string()),
        "source": pa.array(["test"] * len(ids), pa.string()),
        "searches": pa.array([searches for _, _, searches in queries], pa.int64()),
    }
    write_table(pa.table(rows), directory, "queries")
    pairs = [(query, item) for query in ids for item in items]
    judged = {
        "query_id": pa.array([query for query, _ in pairs], pa.string()),
        "item_id": pa.array([item for _, item in pairs], pa.string()),
        "grade": pa.array([3] * len(pairs), pa.int8()),
        "rater": pa.nulls(len(pairs), pa.string()),
    }
    write_table(pa.table(judged), directory, "judgments")
    return directory


def shop(directory: Path) -> Path:
    """A hundred titles that share the words a shop's titles share."""
    kinds = ["bluetooth speaker", "wi-fi router", "usb-c cable", "waterproof lamp 12v"]
    titles = [f"{kinds[n % 4]} {n} 100% polyester 3.5mm" for n in range(100)]
    return make_dataset(directory, titles, [("12v lamp", "train", 40), ("router", "valid", None)])


def tree(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


# --- the tokenizer ---------------------------------------------------------------------------


@given(st.one_of(PRODUCT_TEXT, st.text(max_size=40)))
@example("12v™ ™12v 12v😀 bluetooths abluetooth 100%cotton 3.5mmx 13.5mm 1/2/1/2")
@settings(max_examples=600, deadline=None)
def test_no_text_has_more_tokens_or_another_reading_than_before(text: str) -> None:
    base, extended = tokenizers()
    before, after = base(text)["input_ids"], extended(text)["input_ids"]
    assert len(after) <= len(before)
    assert "".join(extended.decode(after).split()) == "".join(base.decode(before).split())
    kept = Counter(row for row in after if row < len(base))
    assert kept <= Counter(before)


@given(PRODUCT_TEXT)
@settings(max_examples=200, deadline=None)
def test_text_without_an_added_word_has_the_same_tokens_as_before(text: str) -> None:
    base, extended = tokenizers()
    after = extended(text)["input_ids"]
    if max(after) < len(base):
        assert after == base(text)["input_ids"]


@pytest.mark.parametrize("word", WORDS)
def test_an_added_word_is_one_token_between_spaces_marks_and_ends(word: str) -> None:
    base, extended = tokenizers()
    row = extended.convert_tokens_to_ids(word)
    assert row >= len(base)
    for text in (word, f"({word.upper()}), {word}", f"{word} {word}", f"\t{word}\n"):
        ids = extended(text, add_special_tokens=False)["input_ids"]
        assert ids.count(row) == text.lower().count(word)
        assert extended.unk_token_id not in ids


def test_an_added_word_does_not_begin_a_longer_one() -> None:
    # greedy matching would take it and leave a rest that may need more pieces
    base, extended = tokenizers()
    for text in ("bluetooths", "12vx", "100%s 112v", "m²²"):
        added = [row for row in extended(text)["input_ids"] if row >= len(base)]
        assert len(added) == ("100%" in text)


def test_a_list_with_p_percent_split_words_gets_the_predicted_mean_length() -> None:
    base, extended = tokenizers()
    split, whole = wordpiece.split_words(base, WORDS), ["blue", "cotton", "tooth", "men"]
    text = " ".join([*split, *whole] * 5)
    before, after = (
        len(tokenizer(text, add_special_tokens=False)["input_ids"])
        for tokenizer in (base, extended)
    )
    share = len(split) / (len(split) + len(whole))
    mean_pieces = sum(map(len, split.values())) / len(split)
    words = 5 * (len(split) + len(whole))
    assert before / words == pytest.approx(1 + share * (mean_pieces - 1))
    assert after == words


def test_bert_breaks_at_every_mark_that_we_take_for_one() -> None:
    bert = pre_tokenizers.BertPreTokenizer()
    marks = [chr(c) for c in range(0x3100) if re.match(f"[{PUNCTUATION}]", chr(c))]
    assert len(marks) > 90
    assert [mark for mark in marks if len(bert.pre_tokenize_str(f"a{mark}a")) != 3] == []


def test_a_saved_tokenizer_opens_without_our_code_and_extends_again(tmp_path: Path) -> None:
    base, extended = tokenizers()
    wordpiece.save(extended, tmp_path / "once")
    (tmp_path / "once" / "config.json").write_text("{}")
    (tmp_path / "once" / "model.safetensors").write_bytes(b"")
    opened = AutoTokenizer.from_pretrained(str(tmp_path / "once"))
    text = ("Bluetooth 12V, 100% cotton", "wi-fi ™ bluetooths")
    assert opened(*text) == extended(*text)
    assert len(opened) == len(base) + len(WORDS)
    assert {0, 1} == set(opened(*text)["token_type_ids"])

    again = wordpiece.of_encoder(str(tmp_path / "once"))
    twice = wordpiece.extend(again, ["cotton-blue"])
    assert twice.convert_tokens_to_ids("cotton-blue") == len(extended)
    added = twice("wi-fi cotton-blue", add_special_tokens=False)["input_ids"]
    assert added == [extended.convert_tokens_to_ids("wi-fi"), len(extended)]


def test_learning_is_identical_in_every_process(tmp_path: Path) -> None:
    data = shop(tmp_path / "data")
    program = (
        "import sys; from pathlib import Path; from relevance.configs import VocabularyConfig;"
        "from relevance.data.vocabulary import extend_vocabulary;"
        "config = VocabularyConfig(base_size=200, new_words=20, min_count=2);"
        "extend_vocabulary(config, *map(Path, sys.argv[1:]))"
    )
    trees = []
    for run in ("a", "b"):
        subprocess.run([sys.executable, "-c", program, data, tmp_path / run], check=True)
        trees.append(tree(tmp_path / run))
    assert trees[0] == trees[1]


def test_the_step_loads_without_torch() -> None:
    program = "import sys, relevance.data.vocabulary; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# --- the counts ------------------------------------------------------------------------------


def count(directory: Path, titles: Sequence[str], **queries: int | None) -> dict[str, int]:
    asked = [(query, "train", searches) for query, searches in queries.items()]
    # a dataset has at least one query; one of another split is not learnt from
    data = make_dataset(directory, titles, [*asked, ("unlearnt", "valid", None)])
    with open_texts(data) as texts:
        table = count_words(texts.to_learn(), min_count=1, is_lowercased=True)
    found = dict(zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True))
    assert list(found) == sorted(found, key=lambda word: (-found[word], word))
    return found


def learnt(texts: str, copies: int = 30) -> list[str]:
    """So many equal titles that some are not held out."""
    return [texts] * copies


def test_numbers_and_short_compounds_are_counted_whole_beside_their_parts(tmp_path: Path) -> None:
    title = "100% 3.5MM, 1/2-inch wi-fi stainless-steel 12-inch men's 15.6\" all-in-one h&m 1,000"
    found = count(tmp_path / "data", learnt(title))
    whole = {word for word in found if not word.isalnum()}
    assert whole == {"100%", "3.5mm", "1/2", "wi-fi", "men's", '15.6"', "h&m", "1,000"}
    assert found["wi"] == found["fi"] == found["wi-fi"] == found["steel"]
    assert found["inch"] == 2 * found["wi-fi"]


def test_queries_weigh_as_often_as_they_were_searched(tmp_path: Path) -> None:
    found = count(tmp_path / "data", ["kettle"], drill=7, vase=None, bolt=0)
    found.pop("kettle", None)  # unless it is held out
    assert found == {"drill": 7, "bolt": 1, "vase": 1}


def test_words_are_folded_as_the_tokenizer_folds_text() -> None:
    base, _ = tokenizers()
    counts = [("naïve", 2), ("naive", 1), ("BLUETOOTH", 1), ("電源ab", 3), ("intel®", 9), ("m²", 1)]
    folded = wordpiece.fold(base, counts)
    assert folded == {"naive": 3, "bluetooth": 1, "ab": 3, "m²": 1}


def test_counts_of_real_titles_agree_with_a_plain_loop(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data("chorus") / "products.parquet"
    titles = pq.read_table(path, columns=["title"])["title"].to_pylist()[:3_000]
    found = count(tmp_path / "data", titles)
    data = tmp_path / "data"
    with open_texts(data) as texts:
        kept = [text for text in texts.sample(10_000) if text]
    counted: Counter[str] = Counter()
    for title in kept:
        marks = unicodedata.normalize("NFD", title.lower())
        text = "".join(c for c in marks if unicodedata.category(c) != "Mn")
        counted.update(re.findall(rf"[^\s{PUNCTUATION}]+", text))
    plain = {word: n for word, n in found.items() if not re.search(f"[{PUNCTUATION}]", word)}
    assert plain == {word: n for word, n in counted.items() if len(word) <= 100}
    assert 0.7 < len(kept) / len(titles) < 0.9


# --- the step --------------------------------------------------------------------------------


def test_the_step_writes_both_tokenizers_the_words_and_table_3(tmp_path: Path) -> None:
    config = VocabularyConfig(base_size=200, new_words=12, min_count=2)
    metrics = extend_vocabulary(config, shop(tmp_path / "data"), tmp_path / "out")
    base = AutoTokenizer.from_pretrained(str(tmp_path / "out" / "base"))
    extended = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    words = pq.read_table(tmp_path / "out" / "words.parquet").to_pylist()
    assert len(extended) - len(base) == metrics["vocabulary/words_added"] == len(words)
    assert [row["count"] for row in words] == sorted((r["count"] for r in words), reverse=True)
    for position, row in enumerate(words):
        assert len(row["pieces"]) > 1
        assert base.convert_tokens_to_ids(row["pieces"]) == base.encode(
            row["word"], add_special_tokens=False
        )
        assert extended.convert_tokens_to_ids(row["word"]) == len(base) + position
    assert json.loads((tmp_path / "out" / "encoder.json").read_text()) == {"encoder": ""}
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["each word"]["original word"] == 1
    assert table["each pairs"]["extended vocab."] < table["each pairs"]["original WPE"]
    assert metrics["vocabulary/pieces_per_pair_after"] == table["each pairs"]["extended vocab."]
    assert format_table(tmp_path / "out" / "table.json").splitlines()[0].split("  ")[0] == "types"


def test_zero_new_words_change_nothing(tmp_path: Path) -> None:
    config = VocabularyConfig(base_size=200, new_words=0)
    metrics = extend_vocabulary(config, shop(tmp_path / "data"), tmp_path / "out")
    assert metrics["vocabulary/words_added"] == 0
    assert metrics["vocabulary/saved_per_pair"] == 0


def test_words_that_something_matches_in_part_can_keep_their_pieces(tmp_path: Path) -> None:
    titles = ["bluebird bluebirds tartooth tar tarbird tooth jornox jor mah 24volts tooth-tar"] * 60
    data = make_dataset(tmp_path / "data", titles, [("tar slippp", "train", 9)])
    base, _ = tokenizers()
    with open_texts(data) as texts:
        found = [
            set(_new_words(config, base, texts)["word"].to_pylist())
            for config in (
                VocabularyConfig(base_size=200, min_count=2),
                VocabularyConfig(base_size=200, min_count=2, only_strangers=True),
            )
        ]
    assert found[0] == {*titles[0].split(), "slippp"} - {"tooth"}
    # `tar` and `jor` begin others by chance, unless the rest is a word too
    assert found[1] == {"tarbird", "jornox"}


def test_words_of_held_out_items_and_other_splits_are_not_learnt(tmp_path: Path) -> None:
    titles = [f"lamp word{number}x word{number}x" for number in range(200)]
    data = make_dataset(tmp_path / "data", titles, [("hiddenquery", "valid", 99)])
    config = VocabularyConfig(base_size=200, new_words=400, min_count=1)
    extend_vocabulary(config, data, tmp_path / "out")
    words = set(pq.read_table(tmp_path / "out" / "words.parquet")["word"].to_pylist())
    with open_texts(data) as texts:
        held_out = {title.split()[1] for title in texts.held_out_titles(1_000)}
    assert not words & held_out
    assert "hiddenquery" not in words
    assert 20 < len(held_out) < 60


def test_pairs_are_made_of_queries_and_titles_where_none_is_judged(tmp_path: Path) -> None:
    data = shop(tmp_path / "data")
    table_path(data, "judgments").unlink()
    extend_vocabulary(VocabularyConfig(base_size=200), data, tmp_path / "out")
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert "made pairs" in table["measured on"]


def test_clicked_pairs_are_measured_where_none_is_judged(tmp_path: Path) -> None:
    data = shop(tmp_path / "data")
    table_path(data, "judgments").unlink()
    rows = [(f"item:{n}", action) for n in range(100) for action in ("impression", "click")]
    events = {field.name: pa.nulls(len(rows), field.type) for field in TABLES["events"]}
    events["event_id"] = pa.array([str(n) for n in range(len(rows))])
    events["timestamp"] = pa.array([0] * len(rows), pa.timestamp("ms", tz="UTC"))
    for name in ("unit_id", "search_id"):
        events[name] = pa.array(["a"] * len(rows))
    events["query_id"] = pa.array(["query:0"] * len(rows))
    events["item_id"] = pa.array([item for item, _ in rows])
    events["action"] = pa.array([action for _, action in rows])
    write_table(pa.table(events), data, "events")
    extend_vocabulary(VocabularyConfig(base_size=200), data, tmp_path / "out")
    measured = json.loads((tmp_path / "out" / "table.json").read_text())["measured on"]
    assert measured["clicked pairs"] == measured["titles"]


# --- bad input -------------------------------------------------------------------------------


def refuse(data: Path, out: Path, match: str, encoder: str = "") -> None:
    config = VocabularyConfig(encoder=encoder, base_size=200)
    with pytest.raises((ValueError, OSError), match=match) as caught:
        extend_vocabulary(config, data, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob(".*partial"))


def test_a_catalogue_too_small_to_hold_titles_out_is_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", ["lamp"])
    refuse(data, tmp_path / "out", "no title in the fifth of items that is held out")


def test_a_shop_without_any_text_is_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", [" "] * 30, [(" ", "train", None)])
    refuse(data, tmp_path / "out", "no text to learn")


def test_a_title_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    data = shop(tmp_path / "data")
    path = table_path(data, "products")
    titles = [b"caf\xe9"] * 100
    table = pq.read_table(path)
    broken = pa.Array.from_buffers(
        pa.string(), len(titles), pa.array(titles, pa.binary()).buffers()
    )
    pq.write_table(table.set_column(1, TABLES["products"].field("title"), broken), path)
    refuse(data, tmp_path / "out", "products.parquet.*title|UTF")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    data = shop(tmp_path / "data")
    path = table_path(data, "queries")
    pq.write_table(pq.read_table(path).drop_columns(["searches"]), path)
    refuse(data, tmp_path / "out", "queries.parquet: no column 'searches'")


def test_a_title_of_ten_megabytes_is_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", ["lamp " * 2_000_000, *learnt("lamp 12v")])
    refuse(data, tmp_path / "out", "column 'title', row 1: a text of 10,000,000 bytes, want")


def encoder_directory(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "bert"}')
    (directory / "model.safetensors").write_bytes(b"")
    return directory


def test_a_corrupted_tokenizer_is_refused(tmp_path: Path) -> None:
    encoder = encoder_directory(tmp_path / "encoder")
    wordpiece.save(tokenizers()[0], encoder)
    path = encoder / "tokenizer.json"
    path.write_text(path.read_text()[:1_000])
    data = shop(tmp_path / "data")
    refuse(data, tmp_path / "out", r"tokenizer\.json: damaged", str(encoder))


def test_a_tokenizer_that_is_no_wordpiece_is_refused(tmp_path: Path) -> None:
    encoder = encoder_directory(tmp_path / "encoder")
    backend = Tokenizer(models.BPE({"a": 0, "[UNK]": 1}, [], unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(encoder)
    data = shop(tmp_path / "data")
    refuse(data, tmp_path / "out", "is BPE.*want BERT's, that is WordPiece", str(encoder))


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        extend_vocabulary(VocabularyConfig(), shop(tmp_path / "data"), tmp_path / "out")


# --- an encoder that is no BERT --------------------------------------------------------------


def byte_level(directory: Path) -> Path:
    """An encoder directory with RoBERTa's kind of tokenizer, learnt from a few words."""
    encoder_directory(directory)
    learner = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learner.train_from_iterator(
        ["bluetooth speaker wi-fi"] * 9, 300, special_tokens=special, show_progress=False
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = RobertaTokenizer(vocab=learner.get_vocab(), merges=merges)  # type: ignore[arg-type]
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text('{"model_type": "roberta"}')
    return directory


def test_a_byte_level_tokenizer_is_copied_as_it_is_and_measured(tmp_path: Path) -> None:
    encoder = byte_level(tmp_path / "encoder")
    config = VocabularyConfig(encoder=str(encoder), new_words=0)
    metrics = extend_vocabulary(config, shop(tmp_path / "data"), tmp_path / "out")
    text = ("bluetooth Speaker 12v™", "wi-fi 電源")
    given = AutoTokenizer.from_pretrained(str(encoder))
    for made in (tmp_path / "out", tmp_path / "out" / "base"):
        assert (made / "tokenizer.json").read_bytes() == (encoder / "tokenizer.json").read_bytes()
        tokenizer = AutoTokenizer.from_pretrained(str(made))
        assert type(tokenizer) is type(given)
        assert tokenizer(*text) == given(*text)
        assert tokenizer.special_tokens_map == given.special_tokens_map
    words = pq.read_table(tmp_path / "out" / "words.parquet")
    assert (words.column_names, words.num_rows) == (["word", "count", "pieces"], 0)
    assert json.loads((tmp_path / "out" / "encoder.json").read_text()) == {"encoder": str(encoder)}
    assert metrics["vocabulary/words_added"] == metrics["vocabulary/saved_per_pair"] == 0
    assert metrics["vocabulary/tokens_after"] == len(given)
    assert metrics["vocabulary/pieces_per_title_after"] > metrics["vocabulary/words_per_title"]


def test_words_for_a_byte_level_tokenizer_are_refused_with_the_way_out(tmp_path: Path) -> None:
    encoder = byte_level(tmp_path / "encoder")
    match = r"encoder '.*encoder': its tokenizer is BPE.*set vocabulary\.new_words=0"
    refuse(shop(tmp_path / "data"), tmp_path / "out", match, str(encoder))


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    encoder = encoder_directory(tmp_path / "encoder")
    backend = Tokenizer(models.BPE({"a": 0, "[UNK]": 1}, [], unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, cls_token="a"
    )
    tokenizer.save_pretrained(encoder)
    config = VocabularyConfig(encoder=str(encoder), new_words=0)
    with pytest.raises(ValueError, match="its tokenizer has no sep_token"):
        extend_vocabulary(config, shop(tmp_path / "data"), tmp_path / "out")
