"""What a person sees of a local run, and how a step's error comes back: kfp's real local runner."""

import fcntl
import io
import re
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from pipelines.console import Console
from pipelines.local import run_graph, run_local
from relevance.data.tables import DatasetCard, write_card
from relevance.errors import Finding


@dsl.component(install_kfp_package=False)
def say(text: str, lines: list, kind: str) -> None:
    import json
    import os

    from relevance.errors import Finding

    print("said", json.dumps([text, *lines]))
    if kind == "finding":
        raise Finding("gate: no, want more")
    if kind == "value":
        try:
            int("x")
        except ValueError as error:
            raise ValueError("teacher.lr=x: want float\nsecond line") from error
    if kind == "missing":
        os.stat("/nowhere/at/all")  # noqa: PTH116
    if kind == "unicode":
        b"\xff".decode()
    if kind == "json":
        json.loads("{")
    if kind == "bug":
        raise KeyError("brand")
    if kind == "killed":
        os.kill(os.getpid(), 9)


@dsl.pipeline(name="tiny")
def tiny(text: str, kind: str, lines: list = []) -> None:  # noqa: B006 - kfp reads the default
    say(text=text, lines=lines, kind=kind).set_display_name("speak-up")


def run(tmp_path: Path, **arguments: Any) -> str:
    tmp_path.mkdir(exist_ok=True)
    log = tmp_path / "tiny.log"
    run_graph(tiny, arguments, tmp_path / "steps", log)
    return log.read_text()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("finding", Finding, r"^gate: no, want more$"),
        ("value", ValueError, r"^teacher\.lr=x: want float\nsecond line$"),
        (
            "missing",
            FileNotFoundError,
            r"^\[Errno 2\] No such file or directory: '/nowhere/at/all'$",
        ),
        ("unicode", ValueError, r"^'utf-8' codec can't decode byte 0xff"),
        ("json", ValueError, r"^Expecting property name"),
        ("bug", RuntimeError, r"^speak-up failed: KeyError: 'brand'$"),
        ("killed", RuntimeError, r"^speak-up died without an error: killed, or out of memory\?$"),
    ],
)
def test_a_steps_error_reaches_the_caller_as_the_step_raised_it(
    kind: str,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path, text="hello", kind=kind)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert re.search(
        r"\[1/1\] speak-up\n +said .*\n( +Killed\n)? +FAILED after [\d.]+ s\n", shown.err
    )
    assert str(tmp_path / "tiny.log") in shown.err


def test_a_run_shows_steps_and_their_lines_and_logs_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = run(tmp_path, text="hello", kind="")
    shown = capsys.readouterr().err
    assert re.fullmatch(r'\[1/1\] speak-up\n +said \["hello"\]\n +done after [\d.]+ s\n', shown)
    assert "Got executor_input" in log
    assert "\x1b" not in log


def test_arguments_that_say_python3_arrive_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # kfp's local runner replaces these letters by the interpreter's path
    run(tmp_path / "python3", text="python3 -m x", kind="", lines=["/data/python3.11"])
    assert '["python3 -m x", "/data/python3.11"]' in capsys.readouterr().err


def test_a_progress_bar_is_shown_as_it_moves_and_not_twice() -> None:
    screen = io.StringIO()
    console = Console(io.StringIO(), screen, {"say": "say"})
    bars = [
        "pretrain:   0%|          | 0/4 [00:00<?, ?step/s]",
        "pretrain:  50%|█████     | 2/4 [00:10<00:10, 5s/step, loss=2.0]",
        "pretrain: 100%|██████████| 4/4 [00:20<00:00, 5s/step, loss=1.0]",
        "pretrain: 100%|██████████| 4/4 [00:20<00:00, 5s/step, loss=1.0]",
    ]
    console.write("10:00:00.000 - INFO - Executing task 'say'\n")
    console.write("".join(f"    {bar}\n" for bar in bars))
    lines = screen.getvalue().splitlines()
    assert [line.strip() for line in lines[1:]] == bars[1:3]


def test_wrong_input_is_refused_before_anything_starts(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"data/dataset\.json: missing"):
        run_local([data], "smoke", [], out=out)
    data.mkdir()
    write_card(DatasetCard("d", is_generated=True, licence="none", settings={}), data)
    with pytest.raises(ValueError, match="recipe 'x': unknown; there are smoke"):
        run_local([data], "x", [], out=out)
    with pytest.raises(ValueError, match=r"teacher\.rl: FinetuneConfig has no field 'rl'"):
        run_local([data], "smoke", ["teacher.rl=1"], out=out)
    assert not out.exists()


def test_a_directory_that_is_taken_is_refused(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write_card(DatasetCard("d", is_generated=True, licence="none", settings={}), data)
    out.mkdir()
    (out / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="out: holds other files; want a new directory"):
        run_local([data], "smoke", [], out=out)
    (out / "logs").mkdir()
    with (out / "logs" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match="out: another run is at work there"):
            run_local([data], "smoke", [], out=out)
    (out / "run.json").touch()
    with pytest.raises(FileExistsError, match="out: holds a finished run"):
        run_local([data], "smoke", [], out=out)
