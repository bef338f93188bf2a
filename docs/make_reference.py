"""Write ``docs/reference.md`` from the code: commands, recipes, settings, metrics, tables.

``make docs`` runs it; a test compares the page with what ``reference`` returns.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main

from querylift.cli import app
from relevance import configs
from relevance.data import market
from relevance.data.tables import TABLES
from relevance.metrics import definitions
from relevance.recipes import RECIPES

PAGE = Path(__file__).parent / "reference.md"


def reference() -> str:
    """The whole page."""
    recipes = [(f"`{name}`", _first_line(make.__doc__)) for name, make in RECIPES.items()]
    relevant_grade = configs.EvaluationConfig().relevant_grade
    metrics = [(f"`{name}`", text) for name, text in definitions(relevant_grade).items()]
    parts = [
        "# Reference",
        "Made from the code by `make docs`: change the code, not this page.",
        "## Commands",
        "Exit codes: 0 fine, 1 a check said no, 2 wrong use.",
        *_commands(typer.main.get_command(app), "querylift"),
        "## Recipes",
        _table(("recipe", "what it is"), recipes),
        "## Settings",
        "What `--set KEY=VALUE` takes: `seed=1`, or a dotted path such as "
        "`teacher.stage_b.lr=3e-5`. The defaults here are the classes'; "
        "`querylift recipes NAME` prints those of a recipe.",
        *_settings(),
        *_market_settings(),
        "## Metrics",
        _table(("metric", "definition at the default settings"), metrics),
        "## Tables",
        "A dataset is a directory of `dataset.json` and these, as `<table>.parquet`.",
        *_tables(),
    ]
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for child, inner in command.commands.items():
            yield from _commands(inner, f"{name} {child}")
        return
    yield f"### {name}"
    yield inspect.cleandoc(command.help)
    rows = [(f"`{_spelling(p)}`", _default(p), p.help) for p in command.params if not p.hidden]
    yield _table(("", "default", ""), [row for row in rows if row[0] != "`--help`"])


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name: str = parameter.metavar or parameter.name.upper()
        return f"{name}{'...' * (parameter.nargs != 1)}"
    value = "" if parameter.is_flag else f" {parameter.metavar or 'N'}"
    return f"{parameter.opts[0]}{value}"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False) else f"`{parameter.default}`"


def _settings() -> Iterator[str]:
    meanings = _meanings(configs)
    for owner, prefixes in _owners(configs.Recipe(), "").items():
        yield f"### {owner.__name__}"
        if prefixes != [""]:
            yield "At " + ", ".join(f"`{prefix}`" for prefix in prefixes) + "."
        yield _fields(owner, meanings)


def _market_settings() -> Iterator[str]:
    yield f"### {market.MarketConfig.__name__}"
    yield "Of `querylift market`, which takes these and no others."
    yield _fields(market.MarketConfig, _meanings(market))


def _fields(owner: Any, meanings: Mapping[tuple[str, str], str]) -> str:
    rows = []
    for field in dataclasses.fields(owner):
        default = getattr(owner(), field.name)
        is_nested = dataclasses.is_dataclass(default)
        rows.append(
            (
                f"`{field.name}`",
                type(default).__name__ if is_nested else f"`{default!r}`",
                str(field.type).replace("|", "or"),
                meanings.get((owner.__name__, field.name), ""),
            )
        )
    return _table(("key", "default", "type", ""), rows)


def _owners(config: Any, prefix: str) -> dict[type, list[str]]:
    """Each config class in a recipe and the keys that lead to it, outermost first."""
    found = {type(config): [prefix.rstrip(".")]}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for owner, prefixes in _owners(value, f"{prefix}{field.name}.").items():
                found.setdefault(owner, []).extend(prefixes)
    return found


def _meanings(module: ModuleType) -> dict[tuple[str, str], str]:
    """(class, field) to the string below the field, which Python itself throws away."""
    meanings = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for field, below in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                ):
                    text = inspect.cleandoc(str(below.value.value))
                    meanings[node.name, field.target.id] = text
    return meanings


def _tables() -> Iterator[str]:
    for name, schema in TABLES.items():
        yield f"### {name}"
        rows = [(f"`{f.name}`", str(f.type), "yes" if f.nullable else "") for f in schema]
        yield _table(("column", "type", "may be null"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _first_line(text: str | None) -> str:
    return inspect.cleandoc(text or "").partition("\n")[0]


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
