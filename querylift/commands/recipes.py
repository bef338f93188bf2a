"""``querylift recipes``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import typer


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Recipe whose settings to print; none lists all recipes.")
    ] = None,
) -> None:
    """List the recipes, or print one's settings."""
    from relevance.recipes import RECIPES, recipe_config

    if name is None:
        width = max(map(len, RECIPES))
        for recipe, make in RECIPES.items():
            print(f"{recipe:<{width}}  {(make.__doc__ or '').splitlines()[0]}")
    else:
        for key, text in settings_of(recipe_config(name)):
            print(f"{key}={text}")


def settings_of(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key of a config and its value, as ``relevance.config.override`` reads it.

    >>> from relevance.configs import WeakPairsConfig
    >>> next(settings_of(WeakPairsConfig(pairs=7), "weak."))
    ('weak.pairs', '7')
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
