"""The commands on an event log, as one calls them."""

import json
import select
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from querylift.commands import events
from relevance.errors import Finding
from serving.event_log import EventLog, Spool
from serving.privacy import KEY_VARIABLE
from tests.serving.collecting import KEY, ROOT, event, ids_of, kept, long_ago

COMMANDS = ("tail", "compact", "verify", "forget", "retain")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    spool = EventLog.open(tmp_path / "log", Spool(min_free_bytes=1))
    spool.append(kept(event(), event(client_id="anna"), event(at=long_ago(5))))
    spool.close()
    return tmp_path / "log"


def querylift(*arguments: object) -> Result:
    app = typer.Typer()
    for name in COMMANDS:
        app.command(name)(getattr(events, name))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    result = querylift(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_tail_prints_the_last_records(log: Path) -> None:
    lines = done("tail", "--log", log).splitlines()
    assert len(lines) == 3
    assert all("event   click" in line and "velvet sofa" in line for line in lines)
    (last,) = done("tail", "--log", log, "-n", "1", "--json").splitlines()
    assert json.loads(last)["action_name"] == "click"


FOLLOW = """
import sys
from pathlib import Path
from querylift.commands.events import tail

tail(Path(sys.argv[1]), follow=True, lines=0, as_json=True)
"""


@pytest.fixture
def following(log: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOW, str(log)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()


def test_tail_follows_over_segments(log: Path, following: subprocess.Popen[str]) -> None:
    assert following.stdout is not None
    sent: list[str] = []
    got: list[str] = []
    while not got:
        # until the first is seen it may come before the tail has begun
        spool = EventLog.open(log, Spool(min_free_bytes=1))
        sent += append(spool, 1)
        spool.close()
        while select.select([following.stdout], [], [], 0.3)[0]:
            got.append(following.stdout.readline())
    spool = EventLog.open(log, Spool(min_free_bytes=1, segment_bytes=1_000))
    sent += append(spool, 20)
    spool.close()
    first = sent.index(json.loads(got[0])["event_id"])
    got += [following.stdout.readline() for _ in range(len(sent) - first - len(got))]
    assert [json.loads(line)["event_id"] for line in got] == sent[first:]


def append(spool: EventLog, count: int) -> list[str]:
    made = [kept(event()) for _ in range(count)]
    for each in made:
        spool.append(each)
    return [text for each in made for text in ids_of(each)]


def test_compact_then_verify(log: Path, tmp_path: Path) -> None:
    told = json.loads(done("compact", "--log", log, "--store", tmp_path / "s", "--json"))
    assert told == {"segments": 1, "records": 3, "duplicates": 0, "damaged": 0, "files": 2}
    assert "once" in done("verify", "--log", log, "--store", tmp_path / "s")
    assert "segments" in done("compact", "--log", log, "--store", tmp_path / "s")


def test_verify_names_what_is_wrong(log: Path, tmp_path: Path) -> None:
    (path,) = log.glob("*.log")
    path.write_bytes(path.read_bytes().replace(b"velvet", b"velour", 1))
    result = querylift("verify", "--log", log, "--store", tmp_path / "s", "--json")
    assert json.loads(result.stdout) == {"findings": [f"{path}: 2 good lines, want 3"]}
    assert isinstance(result.exception, Finding)
    result = querylift("compact", "--log", log, "--store", tmp_path / "s")
    assert isinstance(result.exception, Finding)


def test_forget_takes_a_person_out(log: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("anna\n")
    options = ("--log", log, "--store", tmp_path / "s", "--ids", ids)
    told = json.loads(done("forget", *options, "--json"))
    assert (told["removed"], told["left"], told["in_log"]) == (1, 0, 0)
    assert list(told["files"].values()) == [{"before": 2, "after": 1}]
    assert "removed" in done("forget", *options)
    done("verify", "--log", log, "--store", tmp_path / "s")
    ids.write_text("\n")
    assert "no ids" in str(querylift("forget", *options).exception)


def test_forget_says_what_is_still_being_written(log: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("shopper-1\n")
    spool = EventLog.open(log, Spool(min_free_bytes=1))
    spool.append(kept(event()))
    result = querylift("forget", "--log", log, "--store", tmp_path / "s", "--ids", ids)
    assert isinstance(result.exception, Finding)
    assert "1 in the log" in str(result.exception)
    spool.close()


def test_retain_removes_old_days(log: Path, tmp_path: Path) -> None:
    done("compact", "--log", log, "--store", tmp_path / "s")
    assert "1 rows, now 0" in done("retain", "--store", tmp_path / "s", "--days", 3)
    done("verify", "--log", log, "--store", tmp_path / "s")


@pytest.mark.parametrize("command", ["tail", "compact", "verify"])
def test_a_directory_that_is_no_log_is_refused(tmp_path: Path, command: str) -> None:
    options = [] if command == "tail" else ["--store", tmp_path / "s"]
    result = querylift(command, "--log", tmp_path, *options)
    assert isinstance(result.exception, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_unknown_here_stops_the_command(log: Path, tmp_path: Path) -> None:
    (path,) = log.glob("*.log")
    path.write_bytes(b"%08x order {}\n" % zlib.crc32(b"order {}"))
    result = querylift("compact", "--log", log, "--store", tmp_path / "s")
    assert isinstance(result.exception, ValueError)
    assert path.exists()
