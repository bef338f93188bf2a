"""Classes of sub-tokens: as many as tokens, and each that of the term around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevance.data.terms import CLASSES, Term, class_id, token_classes


@st.composite
def terms_in_order(draw: st.DrawFn) -> list[Term]:
    cuts = sorted(draw(st.sets(st.integers(0, 60), max_size=10)))
    return [
        Term(start, end, draw(st.integers(1, len(CLASSES) - 1)))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
    ]


offsets = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair)))
)


@given(offsets, terms_in_order())
def test_each_token_gets_the_class_of_the_first_term_it_touches(
    spans: list[tuple[int, int]], terms: list[Term]
) -> None:
    classes = token_classes(spans, terms)
    assert len(classes) == len(spans)
    for (start, end), found in zip(spans, classes, strict=True):
        touched = [t.term_class for t in terms if max(start, t.start) < min(end, t.end)]
        assert found == (touched[0] if touched else 0)


@given(terms_in_order())
def test_special_tokens_have_no_class_wherever_terms_stand(terms: list[Term]) -> None:
    assert token_classes([(0, 0), (0, 0)], terms) == [0, 0]


def test_sub_tokens_of_one_term_share_its_class() -> None:
    text = "vintage bookshelf 80cm"
    terms = [Term(0, 7, class_id("style")), Term(8, 17, class_id("core")), Term(18, 22, 4)]
    spans = [(0, 0), (0, 7), (8, 12), (12, 17), (18, 20), (20, 22), (0, 0)]
    assert [text[a:b] for a, b in spans[2:4]] == ["book", "shelf"]
    assert token_classes(spans, terms) == [0, 5, 6, 6, 4, 4, 0]


def test_classes_are_numbered_as_in_the_paper() -> None:
    wanted = ("none", "material", "function", "usage", "specification", "style", "core")
    assert wanted == CLASSES
    assert [class_id(name) for name in wanted] == list(range(7))


def test_an_unknown_class_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'colour': unknown; there are none, material"):
        class_id("colour")
