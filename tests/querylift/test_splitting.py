"""``serve splitter`` as a process, and ``ab shadow-report`` over what it logged."""

from __future__ import annotations

import gc
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from abtest.records import Shadow, uuid7
from querylift.commands.splitting import shadow_report, splitter
from serving import splitter_app
from serving.event_log import EventLog
from tests.serving.live import KEY, FaultyScorer, experiments, logged, served, write


def started(directory: Path, *options: str) -> subprocess.Popen[str]:
    code = "import typer; from querylift.commands.splitting import splitter; typer.run(splitter)"
    command = [sys.executable, "-c", code, "--experiments", str(directory / "experiments.yaml")]
    command += ["--log", str(directory / "log"), "--port", "0", *options]
    environment = {"QUERYLIFT_ID_KEY": KEY.decode(), "PATH": ""}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"listening on (http://[0-9.:]+)", line):
            return match[1]
    raise AssertionError("it never listened")


def test_it_answers_until_sigterm_and_then_for_a_while(tmp_path: Path) -> None:
    with served(FaultyScorer("1")) as url:
        write(tmp_path / "experiments.yaml", experiments({"champion": url, "challenger": url}))
        process = started(tmp_path, "--drain-s", "1", "--deadline-ms", "20000")
        try:
            client = httpx.Client(base_url=address(process), timeout=30)
            body = {"query": "sofa", "documents": ["sofa", "hose"]}
            ask = {"json": body, "headers": {"x-client-id": "shopper-1"}}
            assert client.post("/rerank", **ask).status_code == 200
            process.send_signal(signal.SIGTERM)
            while client.get("/readyz").status_code == 200:
                pass
            assert client.post("/rerank", **ask).status_code == 200
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.communicate()
    assert len(logged(tmp_path / "log", "event")) == 2


def test_what_was_answered_is_logged_though_the_process_is_killed(tmp_path: Path) -> None:
    with served(FaultyScorer("1")) as url:
        write(tmp_path / "experiments.yaml", experiments({"champion": url, "challenger": url}))
        process = started(tmp_path, "--deadline-ms", "20000")
        try:
            base, answered = address(process), set()
            with httpx.Client(base_url=base, timeout=30) as client:
                for number in range(20):
                    unit = {"x-client-id": f"shopper-{number}"}
                    body = {"query": "sofa", "documents": ["sofa", "hose"]}
                    answer = client.post("/rerank", json=body, headers=unit)
                    answered.add(answer.headers["x-query-id"])
        finally:
            process.kill()
            process.communicate()
    assert {event.query_id for event in logged(tmp_path / "log", "event")} == answered


def test_what_was_imported_is_no_garbage_to_look_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = experiments({"champion": "http://127.0.0.1:9", "challenger": "http://127.0.0.1:9"})
    file = write(tmp_path / "experiments.yaml", content)
    left: list[int] = []
    monkeypatch.setattr(splitter_app, "log_as_json", lambda: None)
    monkeypatch.setattr(
        splitter_app._Server, "run", lambda self, sockets: left.append(len(gc.get_objects()))
    )
    try:
        splitter_app.serve(splitter_app.Settings(file, tmp_path / "log", KEY, port=0))
    finally:
        gc.unfreeze()
    assert left[0] < 1_000 < len(gc.get_objects())


@pytest.mark.parametrize("fault", ["file", "log"])
def test_a_start_that_cannot_be_is_a_plain_mistake(tmp_path: Path, fault: str) -> None:
    content = experiments({"champion": "http://127.0.0.1:9", "challenger": "http://127.0.0.1:9"})
    file = write(tmp_path / "experiments.yaml", content | ({"unit": 1} if fault == "file" else {}))
    log = EventLog.open(tmp_path / "log") if fault == "log" else None
    app = typer.Typer()
    app.command()(splitter)
    options = ["--experiments", str(file), "--log", str(tmp_path / "log"), "--port", "0"]
    result = CliRunner().invoke(app, options, env={"QUERYLIFT_ID_KEY": KEY.decode()})
    assert isinstance(result.exception, ValueError if fault == "file" else OSError)
    if log is not None:
        log.close()


def test_the_report_reads_the_log(tmp_path: Path) -> None:
    at = datetime.now(UTC)
    log = EventLog.open(tmp_path / "log")
    scores = {"main_scores": (3.0, 2.0, None), "shadow_scores": (3.0, None, 2.0)}
    log.append(
        [
            Shadow(
                shadow_id=uuid7(at),
                query_id="q",
                timestamp=at,
                experiment_id="new-ranking",
                main_scorer="bert",
                shadow_scorer="ei-src",
                item_keys=("0", "1", "2"),
                main_ms=1.0,
                shadow_ms=2.0,
                **scores,
            )
        ]
    )
    log.close()
    app = typer.Typer()
    app.command()(shadow_report)
    result = CliRunner().invoke(app, ["--log", str(tmp_path / "log"), "--json"])
    (report,) = json.loads(result.stdout)
    assert (report["copies"], report["top_overlap"]) == (1, 0.5)
    result = CliRunner().invoke(app, ["--log", str(tmp_path / "log")])
    assert "new-ranking: bert answered, ei-src shadowed" in result.stdout
    assert isinstance(CliRunner().invoke(app, []).exception, ValueError)
