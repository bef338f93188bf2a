"""The house stands: names are ours, tools import, packages import only downwards."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]


def requirements() -> list[str]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    # types have nothing to import, and `make spark` alone installs Spark
    return sorted({Requirement(line).name for line in lines} - {"types-PyYAML", "pyspark"})


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_dependency_owns_the_name_of_our_package(package: str) -> None:
    owners = importlib.metadata.packages_distributions().get(package, [])
    assert set(owners) <= {"querylift"}


def test_every_folder_with_code_is_a_package_of_ours() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(PACKAGES)
    assert set(PROJECT["tool"]["mypy"]["packages"]) == folders
    found = {f"{name}*" for name in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]) == found
    assert f"PACKAGES := {' '.join(sorted(folders))}\n" in (ROOT / "Makefile").read_text()


# pip check is content with pairs of versions that fail at import
@pytest.mark.parametrize("distribution", requirements())
def test_every_tool_imports(distribution: str) -> None:
    for module in modules_of(distribution):
        importlib.import_module(module)


def modules_of(distribution: str) -> list[str]:
    """The module named as the distribution, else every public one it brings."""
    owners = importlib.metadata.packages_distributions()
    brought = [
        module
        for module, names in owners.items()
        if normal(distribution) in map(normal, names)
        and module.isidentifier()
        and not module.startswith("_")
    ]
    assert brought, f"{distribution} is not installed: run make test"
    if distribution == "kfp-kubernetes":  # it adds to kfp's package
        return ["kfp.kubernetes"]
    return [module for module in brought if normal(module) == normal(distribution)] or brought


def test_the_lock_pins_every_requirement_within_its_range() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    for line in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[normal(requirement.name)]), line
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={pins['setuptools']}"]


def test_packages_import_only_downwards_and_tools_stay_in_their_place() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_imports_nothing_heavy() -> None:
    # every module of a dependency that a command may need, minus what typer itself brings
    code = (
        "import sys, querylift.cli; "
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "bentoml", "duckdb", "evidently", "great_expectations", "ibis", "kfp", "matplotlib",
        "mlflow", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "tokenizers", "torch",
        "transformers",
    }  # fmt: skip
    assert not heavy & set(loaded)
