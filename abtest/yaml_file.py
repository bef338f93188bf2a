"""YAML read strictly: no repeated key, no alias, no key that is not text; mistakes have places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

T = TypeVar("T")

_PLACE = re.compile(r"(.*?)(?: - at `(key` in `)?\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\w+|\.\.\.")
_PASSWORD = re.compile(r"//[^/@]*@")
_MAX_SHOWN = 60


class _Loader(yaml.SafeLoader):
    """PyYAML would take the last of two equal keys, and ``on`` for true."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _error("an alias; want the text itself", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _error(f"key {key.value!r} is no text; quote it", key.start_mark)
            if key.value in seen:
                raise _error(f"key {key.value!r} is there twice; want it once", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ValueError: It is no YAML, or not this strict kind: file, line and column.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    try:
        return yaml.load(content.decode(), _Loader)
    except RecursionError:
        raise ValueError(f"{path}: nested too deep") from None
    except Exception as error:
        # beside its own errors PyYAML lets out AttributeError, KeyError and others, as for
        # ``!!bool x``
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def to_type(document: Any, wanted: type[T], path: Path) -> T:
    """``document`` as ``wanted``; nothing is coerced.

    Raises:
        ValueError: File, place in it, what is there and what is wanted.
    """
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {_with_place(document, wanted, str(error))}") from None


def _error(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _with_place(document: Any, wanted: type, message: str) -> str:
    """``message`` of msgspec, which writes ``[...]`` for any key, with the keys and the value."""
    parts = _PLACE.fullmatch(message)
    assert parts
    wish, is_key, steps = parts.groups()
    names: list[str] = []
    value = document
    for step in [*_STEP.findall(steps or ""), *(["..."] if is_key else [])]:
        if step == "...":
            key = _first_bad_key(document, value, wanted, message)
            value = value[key]
            names.append(key)
        elif step.isdigit():
            value = value[int(step)]
            names[-1] += f"[{step}]"
        else:
            value = value[step]
            names.append(step)
    place = ".".join(names) or "the file"
    if is_key or isinstance(value, dict | list):
        return f"{place}: {wish}"
    # an address may have been given with a password, and errors end in logs
    given = _PASSWORD.sub("//...@", repr(value))
    return f"{place}: {given:.{_MAX_SHOWN}}; {wish}"


def _first_bad_key(document: Any, part: dict[str, Any], wanted: type, message: str) -> str:
    """The entry of ``part``, a mapping within ``document``, without which all before are fine."""
    entries = dict(part)
    part.clear()
    for key, value in entries.items():
        part[key] = value
        try:
            msgspec.convert(document, wanted)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return key
    raise AssertionError(message)
