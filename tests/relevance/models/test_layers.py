"""How small models start, and the helpers of collation."""

from __future__ import annotations

import torch
from transformers import AutoModelForSequenceClassification

from relevance.configs import ShapeConfig
from relevance.models.layers import pad, set_dropout, small_bert, start_by_matching


class _Words:
    """A tokenizer as far as a shape needs one."""

    pad_token_id = 0

    def __len__(self) -> int:
        return 50


def network(*, is_matching: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    shape = small_bert(ShapeConfig(layers=1, hidden=64, heads=2), _Words())
    made = AutoModelForSequenceClassification.from_config(shape, attn_implementation="eager")
    if is_matching:
        start_by_matching(made)
    return made.eval()


def attention(made: torch.nn.Module) -> torch.Tensor:
    # [CLS] 7 [SEP] 7 8 9 [SEP]: the title repeats word 7 of the query
    ids = torch.tensor([[1, 7, 2, 7, 8, 9, 2]])
    with torch.no_grad():
        return made(ids, output_attentions=True).attentions[0].mean(1)[0]


def test_a_word_attends_to_its_equal_first() -> None:
    weights = attention(network(is_matching=True))
    to_equal, to_others = weights[3, 1], weights[3, [4, 5]]
    assert to_equal > 3 * to_others.max()


def test_without_it_a_word_does_not_know_its_equal() -> None:
    weights = attention(network(is_matching=False))
    assert weights[3, 1] < 3 * weights[3, [4, 5]].max()


def test_rows_are_padded_to_the_longest_only() -> None:
    assert pad([[1, 2, 3], [4]], 0).tolist() == [[1, 2, 3], [4, 0, 0]]


def test_dropout_is_set_everywhere() -> None:
    made = network(is_matching=False)
    set_dropout(made, 0.3)
    shares = {m.p for m in made.modules() if isinstance(m, torch.nn.Dropout)}
    assert shares == {0.3}
