"""The training graph on this machine, by kfp's local runner, with output a person can follow."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import logging
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from kfp import local

from pipelines.train import train_pipeline
from relevance.data.tables import read_card
from relevance.errors import Finding
from relevance.recipes import recipe_config

_RESULTS = {
    "validation": "validate-data/reports",
    "vocabulary": "extend-vocabulary/vocabulary",
    "encoder": "pretrain/encoder",
    "dual": "finetune/checkpoint",
    "teacher": "finetune-2/checkpoint",
    "student": "distill/student",
    "evaluation": "evaluate/evaluation",
}
"""What a run leaves, and which step's output it is."""

_STARTED = re.compile(r"Executing task .*?'([\w-]+)'")
_FINISHED = re.compile(r"Task .*?'([\w-]+)'.*? finished with status .*?(SUCCESS|FAILURE)")
_TRACEBACK = "Traceback (most recent call last):"
# a traceback's own lines are indented deeper than the exception it ends with
_RAISED = re.compile(r" {4}([A-Za-z_][\w.]*)(?:: (.*))?$")
_MESSAGE_LINES = 20
_ERRORS: dict[str, type[Exception]] = {
    "relevance.errors.Finding": Finding,
    **{
        name: kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type)
        and issubclass(kind, ValueError | OSError)
        and not issubclass(kind, UnicodeError)
    },
    # these are not made from a message alone
    "UnicodeDecodeError": ValueError,
    "UnicodeEncodeError": ValueError,
}
_COLOUR = re.compile(r"\x1b\[\d*m")


def run_local(
    data: Sequence[Path],
    recipe: str,
    overrides: Sequence[str],
    *,
    out: Path,
    tracking_uri: str,
) -> dict[str, float]:
    """Run the training graph here, a step after the other.

    A killed run started again with the same ``out`` resumes its training steps where they
    were; one that ended well is never overwritten.

    Args:
        data: Dataset directories, joined if several.
        recipe: Name of a recipe.
        overrides: Its ``key=value`` changes.
        out: Directory of the run: results by name, ``logs``, ``state`` until it ends well.
        tracking_uri: MLflow server or database.

    Returns:
        The evaluation's metrics, flat.

    Raises:
        Finding: A check said no, as the step itself said it.
        ValueError: Wrong input, likewise.
        RuntimeError: A step failed otherwise; the log is named.
    """
    recipe_config(recipe, overrides)
    for directory in data:
        read_card(directory)
    if (out / "evaluation").exists() and not (out / "state").exists():
        raise FileExistsError(f"{out}: holds a finished run; remove it or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    log = out / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}.log"
    log.parent.mkdir(exist_ok=True)
    root = out / "steps"
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with log.open("w") as file, _console(file, sys.stderr) as console:
        try:
            train_pipeline(retries=0)(
                data=[str(directory.resolve()) for directory in data],
                recipe=recipe,
                overrides=list(overrides),
                tracking_uri=_absolute(tracking_uri),
                state=str((out / "state").resolve()),
            )
        except RuntimeError as error:
            _link_results(root, out)
            raise console.failure(log) from error
    _link_results(root, out)
    shutil.rmtree(out / "state", ignore_errors=True)
    return _metrics(out / "evaluation")


class _Console(io.TextIOBase):
    """Everything goes to the log; a person sees steps, times and the steps' own lines."""

    def __init__(self, log: TextIO, screen: TextIO) -> None:
        self.log = log
        self.screen = screen
        self.line = ""
        self.step = ""
        self.started = 0.0
        self.number = 0
        self.failed = ""
        self.is_traceback = False
        self.raised: list[str] = []
        self.is_transient = False

    def write(self, text: str) -> int:
        self.log.write(text)
        self.log.flush()
        self.line += text
        while "\n" in self.line:
            line, self.line = self.line.split("\n", 1)
            self._show(_COLOUR.sub("", line).rstrip())
        return len(text)

    def _show(self, line: str) -> None:
        if started := _STARTED.search(line):
            self.step, self.started = started[1], time.monotonic()
            self.number += 1
            if not self.failed:
                self.is_traceback, self.raised = False, []
            self._print(f"[{self.number}] {self.step}")
        elif finished := _FINISHED.search(line):
            is_done = finished[2] == "SUCCESS"
            if not is_done and not self.failed:
                self.failed = self.step
            verdict = "done" if is_done else "failed"
            self._print(f"    {verdict} in {time.monotonic() - self.started:.0f} s")
        elif "%|" in line or "step/s" in line:
            self._print(f"    {line.strip()}", is_transient=True)
        elif not self.failed:
            # what ends the run after a failure may fail too, but is not why
            self._read_traceback(line)

    def _read_traceback(self, line: str) -> None:
        """Keep the last exception that the step showed: its kind, then its message's lines."""
        if line.strip() == _TRACEBACK:
            self.is_traceback, self.raised = True, []
        elif self.raised:
            if line.strip() and len(self.raised) <= _MESSAGE_LINES:
                self.raised.append(line.strip())
        elif self.is_traceback and (raised := _RAISED.match(line)):
            self.raised = [raised[1], *filter(None, [raised[2]])]

    def _print(self, line: str, *, is_transient: bool = False) -> None:
        if self.screen.isatty():
            # a progress bar overwrites the one before it
            start = "\r\x1b[K" if self.is_transient else ""
            self.screen.write(start + line[:100] + ("" if is_transient else "\n"))
            self.is_transient = is_transient
        else:
            self.screen.write(line + "\n")
        self.screen.flush()

    def failure(self, log: Path) -> Exception:
        """The failed step's own exception, as far as its kind is known here."""
        kind, *lines = self.raised or [""]
        message = "\n".join(lines)
        if kind in _ERRORS and message:
            return _ERRORS[kind](message)
        said = ": ".join(filter(None, [f"{self.failed or self.step} failed", kind, message]))
        return RuntimeError(f"{said}; see {log}")


@contextlib.contextmanager
def _console(log: TextIO, screen: TextIO) -> Iterator[_Console]:
    console = _Console(log, screen)
    # kfp logs through the root logger and prints what a step prints, both on stdout
    with contextlib.redirect_stdout(console), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.captureWarnings(False)
        yield console


def _link_results(root: Path, out: Path) -> None:
    """Name the results of the newest attempt, so that nobody has to know kfp's folders."""
    newest = max((path for path in root.iterdir() if path.is_dir()), key=_age)
    for name, place in _RESULTS.items():
        target = newest / place
        link = out / name
        link.unlink(missing_ok=True)  # else an earlier attempt's would stand beside this one's
        if target.exists():
            link.symlink_to(target.resolve().relative_to(out.resolve()))


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _absolute(tracking_uri: str) -> str:
    """A relative sqlite path means the caller's directory, whatever the step's is."""
    prefix = "sqlite:///"
    if tracking_uri.startswith(prefix):
        database = Path(tracking_uri.removeprefix(prefix)).resolve()
        database.parent.mkdir(parents=True, exist_ok=True)
        return f"{prefix}{database}"
    return tracking_uri


def _metrics(evaluation: Path) -> dict[str, float]:
    from relevance.evaluation import flatten

    return flatten(json.loads((evaluation / "evaluation.json").read_text()))
