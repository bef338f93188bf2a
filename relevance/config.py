"""Typed overrides for frozen dataclass configs: ``teacher.optim.lr=3e-5``."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, Union

Config = TypeVar("Config")


def override(config: Config, settings: Iterable[str]) -> Config:
    """Return ``config`` with every ``dotted.key=value`` applied, the last one of a key winning.

    All settings of one object are applied at once, so that those which must agree, as
    ``batch_size`` and ``accumulate``, may come in any order.

    Raises:
        ValueError: No ``=``, an unknown key, or a value of the wrong type. The message
            names the key and what would have been accepted.
    """
    values: dict[tuple[str, ...], tuple[str, str]] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise ValueError(f"{setting!r}: want key=value, for example teacher.optim.lr=3e-5")
        values[tuple(key.split("."))] = key, value
    changed: Config = _replace(config, values)
    return changed


def _replace(config: Any, values: dict[tuple[str, ...], tuple[str, str]]) -> Any:
    """``config`` with the texts of ``values``, by path from here, and their full keys."""
    fields = [field.name for field in dataclasses.fields(config)]
    hints = typing.get_type_hints(type(config))
    deeper: dict[str, dict[tuple[str, ...], tuple[str, str]]] = {}
    changes: dict[str, Any] = {}
    for (name, *rest), (key, text) in values.items():
        if name not in fields:
            owner = type(config).__name__
            raise ValueError(f"{key}: {owner} has no field {name!r}; it has {', '.join(fields)}")
        current = getattr(config, name)
        if rest and not dataclasses.is_dataclass(current):
            raise ValueError(f"{key}: goes deeper than the setting it names")
        if rest:
            deeper.setdefault(name, {})[tuple(rest)] = key, text
        elif dataclasses.is_dataclass(current):
            inner = ", ".join(f"{name}.{field.name}" for field in dataclasses.fields(current))
            raise ValueError(f"{key}: holds settings of its own: {inner}")
        else:
            changes[name] = _parse(key, text, hints[name])
    for name, inside in deeper.items():
        changes[name] = _replace(getattr(config, name), inside)
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        given = ", ".join(f"{key}={text}" for key, text in values.values())
        raise ValueError(f"{given}: {error}") from error


def _parse(key: str, text: str, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _parse(key, text, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        choices = {str(argument): argument for argument in arguments}
        if text not in choices:
            raise ValueError(f"{key}={text}: want one of {', '.join(choices)}")
        return choices[text]
    if origin is tuple:
        return tuple(_parse(key, part.strip(), arguments[0]) for part in text.split(",") if part)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{key}={text}: want true or false")
        return text.lower() == "true"
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{key}={text}: want {kind.__name__}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{key}={text}: want a finite number")
    return value
