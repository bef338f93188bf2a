"""``ab report`` and ``ab serve`` as commands."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from abtest.result import Gate, Result, to_json
from querylift.commands.reporting import report
from relevance.errors import Finding
from tests.abtest.results import result

NAME = "ei-src-vs-bert-phase-1"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return write(tmp_path / "result.json", result())


def write(path: Path, found: Result) -> Path:
    path.write_text(to_json(found))
    return path


def test_it_writes_four_files_and_never_twice(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    report(out=out, result=kept)
    assert {path.name for path in out.iterdir()} == {
        f"{NAME}.{it}" for it in ("html", "md", "csv", "json")
    }
    (out / f"{NAME}.csv").unlink()
    (out / f"{NAME}.html").write_text("mine")
    with pytest.raises(FileExistsError, match=f"{NAME}.html"):
        report(out=out, result=kept)
    assert not (out / f"{NAME}.csv").exists()
    assert (out / f"{NAME}.html").read_text() == "mine"
    report(out=out, result=kept, replace=True)
    assert "Ship treatment" in (out / f"{NAME}.html").read_text()


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://me:secret@host", "mlflow", ""])
def test_a_registry_without_an_address_is_refused(kept: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="--registry: want http://HOST") as refused:
        report(out=tmp_path / "reports", result=kept, registry=url)
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "reports").exists()


def test_what_is_for_a_log_is_refused_beside_a_result(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--until, --pre-days: of --events; --result has been"):
        report(out=tmp_path, result=kept, until="2026-11-05T08:00Z", pre_days=7)


def test_a_check_that_stops_is_a_finding_and_the_report_is_there(tmp_path: Path) -> None:
    gate = Gate(name="sample_ratio", status="stop", message="51 % in treatment")
    kept = write(tmp_path / "result.json", result(gates=(gate,)))
    with pytest.raises(Finding, match="51 % in treatment"):
        report(out=tmp_path / "reports", result=kept)
    assert "stops the decision" in (tmp_path / "reports" / f"{NAME}.html").read_text()


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"schema_version": 2}')
    app = typer.Typer()
    app.command()(report)
    ran = CliRunner().invoke(app, ["--result", str(path), "--out", str(tmp_path / "reports")])
    assert isinstance(ran.exception, ValueError)
    assert "no result of an analysis" in str(ran.exception)
    assert not (tmp_path / "reports").exists()


def test_the_site_shows_the_report(kept: Path, tmp_path: Path) -> None:
    report(out=tmp_path / "reports", result=kept)
    code = "import typer; from querylift.commands.reporting import serve; typer.run(serve)"
    command = [sys.executable, "-c", code, "--reports", str(tmp_path / "reports"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert "Ship treatment" in httpx.get(url).text
        assert (
            httpx.get(f"{url}{NAME}.html").text
            == (tmp_path / "reports" / f"{NAME}.html").read_text()
        )
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
