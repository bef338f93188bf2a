"""What a person and a caller see of a local run."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import local
from pipelines.local import _Console, run_local
from relevance.errors import Finding

LOG = Path("log")


def started(step: str) -> str:
    return f"10:51:22.857 - INFO - Executing task \x1b[96m'{step}'\x1b[0m\n"


def ended(step: str, status: str) -> str:
    colour = 92 if status == "SUCCESS" else 91
    return (
        f"10:51:39.895 - INFO - Task \x1b[96m'{step}'\x1b[0m finished with status "
        f"\x1b[{colour}m{status}\x1b[0m\n"
    )


def raised(error: str) -> str:
    """A traceback as kfp shows a step's: indented by four."""
    lines = [
        "Traceback (most recent call last):",
        '  File "ephemeral_component.py", line 33, in validate_data',
        "    raise ValueError: not this one",
        *error.splitlines(),
    ]
    return "".join(f"    {line}\n" for line in lines)


def console_after(*parts: str) -> _Console:
    console = _Console(io.StringIO(), io.StringIO())
    for part in parts:
        console.write(part)
    return console


def failure(*parts: str) -> Exception:
    return console_after(*parts).failure(LOG)


def test_steps_are_numbered_and_timed() -> None:
    console = console_after(
        started("validate-data"),
        "    [KFP Executor]: Got executor_input:\n",
        ended("validate-data", "SUCCESS"),
        started("pretrain"),
        "    pretrain:  50%|█████     | 2/4 [00:00<00:00, 11.66step/s, loss=6.2662]\n",
        ended("pretrain", "FAILURE"),
    )
    shown = console.screen
    assert isinstance(shown, io.StringIO)
    assert shown.getvalue().splitlines() == [
        "[1] validate-data",
        "    done in 0 s",
        "[2] pretrain",
        "    pretrain:  50%|█████     | 2/4 [00:00<00:00, 11.66step/s, loss=6.2662]",
        "    failed in 0 s",
    ]


def test_the_log_has_every_byte() -> None:
    parts = [started("pretrain"), "    half a li", "ne\n", ended("pretrain", "SUCCESS"), "rest"]
    log = console_after(*parts).log
    assert isinstance(log, io.StringIO)
    assert log.getvalue() == "".join(parts)


def test_a_line_in_pieces_is_read_whole() -> None:
    line = started("pretrain")
    assert console_after(line[:30], line[30:40], line[40:]).step == "pretrain"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("relevance.errors.Finding: gate: no", Finding, "gate: no"),
        ("ValueError: a.parquet: no column 'x'", ValueError, "a.parquet: no column 'x'"),
        ("FileNotFoundError: data: missing", FileNotFoundError, "data: missing"),
        ("OSError: [Errno 28] No space left", OSError, "[Errno 28] No space left"),
        (
            "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 3",
            ValueError,
            "'utf-8' codec can't decode byte 0xe9 in position 3",
        ),
        ("ValueError: one\n  two\n\nthree: 3", ValueError, "one\ntwo\nthree: 3"),
    ],
)
def test_a_step_s_exception_comes_back_as_it_was(
    error: str, kind: type[Exception], message: str
) -> None:
    given = failure(started("register"), raised(error), ended("register", "FAILURE"))
    assert type(given) is kind
    assert str(given) == message


@pytest.mark.parametrize(
    "error", ["torch.OutOfMemoryError: 3 GiB", "KeyError: 'x'", "pyarrow.lib.ArrowInvalid: bytes"]
)
def test_an_exception_of_another_kind_names_the_step_and_the_log(error: str) -> None:
    given = failure(started("distill"), raised(error), ended("distill", "FAILURE"))
    assert type(given) is RuntimeError
    assert str(given) == f"distill failed: {error}; see log"


def test_a_step_that_was_killed_says_which_and_where_to_look() -> None:
    given = failure(started("distill"), "    quiet\n", ended("distill", "FAILURE"))
    assert str(given) == "distill failed; see log"


def test_of_chained_exceptions_the_last_one_counts() -> None:
    given = failure(
        started("evaluate"),
        raised("KeyError: 'title'"),
        "\n    During handling of the above exception, another exception occurred:\n\n",
        raised("ValueError: no titles"),
        ended("evaluate", "FAILURE"),
    )
    assert (type(given), str(given)) == (ValueError, "no titles")


def test_an_exception_that_a_step_survived_is_not_the_next_one_s() -> None:
    given = failure(
        started("pretrain"),
        raised("ValueError: handled and logged"),
        ended("pretrain", "SUCCESS"),
        started("finetune"),
        ended("finetune", "FAILURE"),
    )
    assert str(given) == "finetune failed; see log"


def test_the_exit_handler_does_not_hide_what_failed() -> None:
    given = failure(
        started("register"),
        raised("relevance.errors.Finding: gate: no"),
        ended("register", "FAILURE"),
        started("finish-run"),
        raised("OSError: MLflow is away"),
        ended("finish-run", "FAILURE"),
    )
    assert (type(given), str(given)) == (Finding, "gate: no")


def test_a_sentence_with_an_error_s_name_is_no_exception() -> None:
    given = failure(
        started("distill"), "    ValueError: only logged\n", ended("distill", "FAILURE")
    )
    assert str(given) == "distill failed; see log"


Graph = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Graph], None]:
    """Put a function in the place of kfp's graph; the rest of the run is real."""

    def put(graph: Graph) -> None:
        monkeypatch.setattr(local, "train_pipeline", lambda retries: graph)
        monkeypatch.setattr(local.local, "init", lambda *_, **__: None)

    return put


def attempt(out: Path, name: str, *places: str) -> None:
    """Results of an attempt, in kfp's folders."""
    for place in places:
        directory = out / "steps" / name / place
        directory.mkdir(parents=True)
        (directory / "made_by").write_text(name)
        if place == "evaluate/evaluation":
            content = '{"models": {"student": {"roc_auc": {"value": 0.75}}}}'
            (directory / "evaluation.json").write_text(content)


def test_a_run_that_ended_well_has_results_by_name_and_no_state(
    tiny_data: Path, tmp_path: Path, pretend: Callable[[Graph], None]
) -> None:
    out = tmp_path / "out"
    given: dict[str, Any] = {}

    def graph(**arguments: Any) -> None:
        given.update(arguments)
        Path(arguments["state"]).mkdir()
        attempt(out, "train-1", "distill/student", "evaluate/evaluation")

    pretend(graph)
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    metrics = run_local([tiny_data], "smoke", ["seed=3"], out=out, tracking_uri=uri)

    assert metrics == {"student/roc_auc": 0.75}
    assert given == {
        "data": [str(tiny_data)],
        "recipe": "smoke",
        "overrides": ["seed=3"],
        "tracking_uri": uri,
        "state": str(out / "state"),
    }
    assert (tmp_path / "new").is_dir()
    assert sorted(p.name for p in out.iterdir()) == ["evaluation", "logs", "steps", "student"]
    out.rename(tmp_path / "moved")  # the links are relative
    assert (tmp_path / "moved" / "student" / "made_by").read_text() == "train-1"
    with pytest.raises(FileExistsError, match="holds a finished run"):
        run_local([tiny_data], "smoke", [], out=tmp_path / "moved", tracking_uri=uri)


def test_a_failed_run_keeps_its_state_and_may_be_run_again(
    tiny_data: Path, tmp_path: Path, pretend: Callable[[Graph], None]
) -> None:
    def fail(**arguments: Any) -> None:
        (tmp_path / "state").mkdir()
        attempt(tmp_path, "train-1", "pretrain/encoder", "evaluate/evaluation")
        print(started("register"), raised("relevance.errors.Finding: no"), sep="", end="")
        print(ended("register", "FAILURE"), end="")
        raise RuntimeError("Pipeline failed")

    def succeed(**arguments: Any) -> None:
        assert (tmp_path / "state").is_dir()
        attempt(tmp_path, "train-2", "evaluate/evaluation")

    pretend(fail)
    with pytest.raises(Finding, match=r"^no$"):
        run_local([tiny_data], "smoke", [], out=tmp_path, tracking_uri="")
    assert (tmp_path / "state").is_dir()
    assert (tmp_path / "encoder" / "made_by").read_text() == "train-1"

    pretend(succeed)
    run_local([tiny_data], "smoke", [], out=tmp_path, tracking_uri="")
    assert (tmp_path / "evaluation" / "made_by").read_text() == "train-2"
    # no result of the attempt before stands among this one's
    assert not (tmp_path / "encoder").exists()


def test_wrong_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="recipe 'nonsense'"):
        run_local([tmp_path], "nonsense", [], out=out, tracking_uri="")
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: missing"):
        run_local([tmp_path], "smoke", [], out=out, tracking_uri="")
    assert not out.exists()


def test_a_relative_database_is_the_caller_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local._absolute("sqlite:///runs/m.db") == f"sqlite:///{tmp_path}/runs/m.db"
    assert (tmp_path / "runs").is_dir()
    assert local._absolute("http://mlflow:5000") == "http://mlflow:5000"
