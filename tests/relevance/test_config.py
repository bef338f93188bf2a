"""Overrides of configs: typed, checked, and errors that say what is right."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from relevance.config import override
from relevance.configs import OptimConfig, Recipe
from relevance.recipes import RECIPES, recipe_config


@dataclass(frozen=True)
class Inner:
    low: int = 1
    high: int = 8

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    count: int = 1
    share: float = 0.5
    name: str = "x"
    is_on: bool = False
    mode: Literal["auto", "fast"] = "auto"
    level: Literal[1, 2] = 1
    limit: int | None = None
    sizes: tuple[int, ...] = (1,)


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("count=7", Outer(count=7)),
        ("share=3e-5", Outer(share=3e-5)),
        ("share=1", Outer(share=1.0)),
        ("name=a=b c", Outer(name="a=b c")),
        ("name=", Outer(name="")),
        ("is_on=True", Outer(is_on=True)),
        ("mode=fast", Outer(mode="fast")),
        ("level=2", Outer(level=2)),
        ("limit=3", Outer(limit=3)),
        ("limit=none", Outer()),
        ("sizes=1, 2,3", Outer(sizes=(1, 2, 3))),
        (" inner.low = 2 ", Outer(inner=Inner(low=2))),
    ],
)
def test_values_get_the_type_of_their_field(setting: str, wanted: Outer) -> None:
    found = override(Outer(), [setting])
    assert found == wanted
    assert repr(found) == repr(wanted)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("count", r"'count': want key=value, for example"),
        ("cuont=1", r"cuont: Outer has no field 'cuont'; it has inner, count, share"),
        ("inner.lo=1", r"inner.lo: Inner has no field 'lo'; it has low, high"),
        ("=1", r"'=1': want key=value, for example"),
        ("inner=1", r"inner: holds settings of its own: inner.low, inner.high"),
        ("count.deep=1", r"count.deep: goes deeper than the setting it names"),
        ("count=1.5", r"count=1.5: want int"),
        ("count=", r"count=: want int"),
        ("share=much", r"share=much: want float"),
        ("share=nan", r"share=nan: want a finite number"),
        ("share=-inf", r"share=-inf: want a finite number"),
        ("is_on=1", r"is_on=1: want true or false"),
        ("mode=slow", r"mode=slow: want one of auto, fast"),
        ("level=3", r"level=3: want one of 1, 2"),
        ("limit=x", r"limit=x: want int"),
        ("inner.low=9", r"inner.low=9: low 9 is above high 8"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_right(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        override(Outer(), [setting])


def test_settings_that_must_agree_may_come_in_any_order() -> None:
    wanted = Outer(inner=Inner(low=20, high=30))
    settings = ["inner.low=20", "inner.high=30"]
    assert override(Outer(), settings) == override(Outer(), settings[::-1]) == wanted
    with pytest.raises(ValueError, match=r"inner\.low=20, inner\.high=10: low 20 is above high 10"):
        override(Outer(), ["inner.low=20", "inner.high=10"])


def test_the_last_setting_of_a_key_wins_and_the_config_is_not_changed() -> None:
    config = Outer()
    assert override(config, ["count=2", "count=3"]).count == 3
    assert config == Outer()
    assert override(config, []) == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_take_settings(name: str) -> None:
    recipe = recipe_config(name, ["teacher.stage_b.lr=1e-4", "seed=3"])
    base = RECIPES[name]()
    stage = replace(base.teacher.stage_b, lr=1e-4)
    assert recipe == replace(base, seed=3, teacher=replace(base.teacher, stage_b=stage))


def test_unknown_recipes_and_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="recipe 'huge': unknown; there are smoke, "):
        recipe_config("huge")
    with pytest.raises(ValueError, match=r"teacher\.stage_a\.lr=-1: lr is -1\.0, want above 0"):
        override(Recipe(), ["teacher.stage_a.lr=-1"])
    with pytest.raises(ValueError, match="OptimConfig has no field 'rl'; it has steps, batch_size"):
        override(OptimConfig(), ["rl=1"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["heat_until=0.6,0.9"], "heat (1.0,) and heat_until (0.6, 0.9) differ in length"),
        (["heat=4,1", "heat_until=0.6,0.9"], "want rising shares above 0 up to 1: the schedule"),
        (["heat=4,1", "heat_until=1,1"], "the schedule must cover the run"),
        (["heat=0"], "want factors above 0"),
        (["regulariser.epsilon=-1"], "epsilon is -1.0, want 0 or more"),
        (["regulariser.weights=0.5,0.5"], "want three, none below 0"),
        (["word_drop=-1"], "word_drop is -1.0, want 0 or more"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(settings: list[str], message: str) -> None:
    given = [f"teacher.loss.{setting}" for setting in settings]
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe_config("ablation_cat", given)
