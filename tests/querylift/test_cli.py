"""The command line as a shell sees it: exit codes, one-line errors, output that machines read."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from querylift.cli import app
from querylift.commands.options import DEFAULT_RECIPE
from querylift.commands.recipes import settings_of
from relevance.config import override
from relevance.data.tables import TABLES, DatasetCard, write_card, write_table
from relevance.errors import Finding
from relevance.recipes import RECIPES, recipe_config


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = list(commands(typer.main.get_command(app)))


def querylift(*arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, after ``code``."""
    start = f"{code}\nfrom querylift.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", start, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "COLUMNS": "100"},
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("querylift: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_answers_help(path: tuple[str, ...]) -> None:
    done = querylift(*path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: querylift {' '.join(path)}")
    assert done.stderr == ""


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_wrong_use(path: tuple[str, ...]) -> None:
    done = querylift(*path, "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr


def test_the_module_runs_as_the_command_does() -> None:
    command = [sys.executable, "-m", "querylift", "--help"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == querylift("--help").stdout


def test_the_default_recipe_exists() -> None:
    assert DEFAULT_RECIPE in RECIPES


def test_the_help_of_import_names_every_layout() -> None:
    from relevance.data.readers import READERS

    *others, last = READERS
    assert f"{', '.join(others)} or {last}." in querylift("import", "--help").stdout


def test_recipes_lists_every_recipe_with_what_it_is() -> None:
    lines = querylift("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("name", RECIPES)
def test_the_settings_of_a_recipe_can_be_set_again(name: str) -> None:
    settings = [f"{key}={text}" for key, text in settings_of(recipe_config(name))]
    assert querylift("recipes", name).stdout.splitlines() == settings
    assert override(recipe_config("smoke"), settings) == recipe_config(name)


def test_an_unknown_recipe_is_one_line_with_those_there_are() -> None:
    assert_one_line(querylift("recipes", "nosuch"), 2, "recipe 'nosuch'", *RECIPES)


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate-data", "--data", "d", "--out", "o"),
        ("extend-vocabulary", "--data", "d", "--out", "o"),
        ("pretrain", "--data", "d", "--vocabulary", "v", "--out", "o"),
        ("finetune", "--data", "d", "--encoder", "e", "--out", "o"),
        ("learn-terms", "--data", "d", "--out", "o"),
        ("distill", "--data", "d", "--teacher", "t", "--vocabulary", "v", "--out", "o"),
        ("compare", "--recipes", "smoke", "--data", "d", "--out", "o"),
        ("evaluate", "c", "--data", "d"),
        ("register", "c", "--data", "d", "--evaluation", "e"),
        ("pipeline", "run", "--data", "d", "--out", "o"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_an_unknown_setting_is_one_line_with_those_there_are(arguments: tuple[str, ...]) -> None:
    done = querylift(*arguments, "--set", "teacher.rl=1")
    assert_one_line(done, 2, "teacher.rl: FinetuneConfig has no field 'rl'; it has family,")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        ("Finding('no, by 0.1')", 1),
        ("ValueError('no,\\n by 0.1')", 2),
        ("OSError('no, by 0.1')", 2),
    ],
)
def test_exit_codes_tell_findings_from_wrong_use(raised: str, code: int) -> None:
    setup = (
        f"from relevance.errors import {Finding.__name__}\n"
        "import relevance.recipes as module\n"
        f"def fail(*_):\n    raise {raised}\n"
        "module.recipe_config = fail"
    )
    done = querylift("recipes", "smoke", code=setup)
    assert_one_line(done, code, "querylift: no, by 0.1\n")


def test_a_bug_is_a_traceback() -> None:
    setup = "import relevance.recipes as module\nmodule.recipe_config = None"
    done = querylift("recipes", "smoke", code=setup)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "TypeError" in done.stderr


def test_an_interrupt_exits_130() -> None:
    setup = (
        "import relevance.recipes as module\n"
        "def fail(*_):\n    raise KeyboardInterrupt\n"
        "module.recipe_config = fail"
    )
    done = querylift("recipes", "smoke", code=setup)
    assert done.returncode == 130
    assert done.stderr == ""


def test_a_package_that_is_not_installed_is_named() -> None:
    setup = "import sys\nsys.modules['torch'] = None"
    done = querylift("pretrain", "--data", "d", "--vocabulary", "v", "--out", "o", code=setup)
    assert_one_line(done, 2, "needs the package 'torch'", "querylift[data,train]")


def test_finetune_takes_only_the_models_of_a_recipe() -> None:
    arguments = ("--data", "d", "--encoder", "e", "--out", "o", "--model", "student")
    assert_one_line(querylift("finetune", *arguments), 2, "--model 'student'", "teacher, dual")


def test_two_checkpoints_of_one_name_are_told_to_differ() -> None:
    done = querylift("evaluate", "a/student", "b/student", "--data", "d")
    assert_one_line(done, 2, "'student' is given already", "student-2=b/student")


def test_a_directory_that_is_no_dataset_is_one_line(tmp_path: Path) -> None:
    done = querylift("evaluate", tmp_path, "--data", tmp_path)
    assert_one_line(done, 2, f"{tmp_path / 'dataset.json'}: missing")


def test_json_is_all_that_reaches_stdout(tmp_path: Path) -> None:
    write_card(DatasetCard("x", True, "none", {}), tmp_path)
    for table in ("queries", "products"):
        write_table(TABLES[table].empty_table(), tmp_path, table)
    setup = (
        "import sys, types\n"
        "module = types.ModuleType('relevance.data.vocabulary')\n"
        "def extend_vocabulary(config, data, out):\n"
        "    print('a table for people')\n"
        "    return {'words': 3.0, 'undefined': float('nan')}\n"
        "module.extend_vocabulary = extend_vocabulary\n"
        "module.format_table = lambda path: f'Table 3 of {path.name}'\n"
        "sys.modules[module.__name__] = module\n"
        "import relevance.data\n"
        "relevance.data.vocabulary = module"
    )
    arguments = ("extend-vocabulary", "--data", tmp_path, "--out", tmp_path / "out")
    machine = querylift(*arguments, "--json", code=setup)
    assert json.loads(machine.stdout) == {"words": 3.0, "undefined": None}
    assert machine.stderr == "a table for people\n"
    person = querylift(*arguments, code=setup)
    assert person.stdout.splitlines()[0] == "a table for people"
    assert person.stdout.splitlines()[1].split() == ["words", "3"]
    assert person.stdout.splitlines()[-1] == "Table 3 of table.json"


def test_score_names_a_missing_column_before_it_reads_the_checkpoint(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,name\nlamp,Lamp\n")
    done = querylift("score", "nowhere", "--pairs", pairs, "--out", tmp_path / "out.csv")
    assert done.returncode == 2
    assert done.stderr.endswith(f"querylift: {pairs}: no column 'title'; it has query, name\n")
    assert list(tmp_path.iterdir()) == [pairs]
