"""Files and directories are whole or absent, whatever ends the writer."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from relevance.files import new_dir, new_file, refuse_existing, sha256

ROOT = Path(__file__).resolve().parents[2]

New = Callable[[Path], AbstractContextManager[Path]]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_appears_whole_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    with new_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert names(path.parent) == ["b.txt"]


def test_a_directory_appears_whole_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with new_dir(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "c.txt").write_text("one")
        assert not path.exists()
    assert (path / "inner" / "c.txt").read_text() == "one"
    assert names(path.parent) == ["b"]


def test_results_can_be_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with new_dir(tmp_path / "dir"):
            pass
        with new_file(tmp_path / "file") as partial:
            partial.write_text("one")
    finally:
        os.umask(before)
    assert (tmp_path / "dir").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def fail_halfway(writer: AbstractContextManager[Path]) -> None:
    with writer as partial:
        (partial / "x" if partial.is_dir() else partial).write_text("half")
        raise KeyError("x")


@pytest.mark.parametrize("new", [new_file, new_dir])
def test_an_error_leaves_nothing(new: New, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail_halfway(new(tmp_path / "out"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("new", [new_file, new_dir])
def test_what_exists_is_kept(new: New, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(FileExistsError, match="out: exists already; remove it"), new(path):
        pass
    assert path.read_text() == "old"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="out: exists already"), new(path):
        pass
    assert names(tmp_path) == ["out"]


def test_a_directory_made_meanwhile_is_kept(tmp_path: Path) -> None:
    def race() -> None:
        with new_dir(tmp_path / "out") as partial:
            (partial / "mine").touch()
            (tmp_path / "out").mkdir()

    with pytest.raises(FileExistsError):
        race()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []


def test_a_replaced_file_keeps_the_old_text_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(KeyError):
        fail_halfway(new_file(path, replace=True))
    assert path.read_text() == "old"
    with new_file(path, replace=True) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    refuse_existing(tmp_path / "free")


KILLED = """
import os, signal, sys
from pathlib import Path
from relevance.files import new_dir, new_file
new = {"file": new_file, "dir": new_dir}[sys.argv[1]]
with new(Path(sys.argv[2])) as partial:
    (partial / "half" if partial.is_dir() else partial).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_a_killed_writer_leaves_no_target_and_the_next_one_clears_up(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, kind, path], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        # the second run removed what the first one left
        assert len(names(tmp_path)) == 1
        assert names(tmp_path)[0].endswith(".partial")
    with (new_dir if kind == "dir" else new_file)(path) as partial:
        (partial / "whole" if kind == "dir" else partial).write_text("whole")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("new", [new_file, new_dir])
def test_a_living_writer_of_the_same_target_is_left_alone(new: New, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with new(path) as first:
        with pytest.raises(KeyError):
            fail_halfway(new(path))
        assert first.exists()
    assert path.exists()


def test_partials_of_other_targets_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".other.1234.partial").touch()
    with new_file(tmp_path / "out") as partial:
        partial.write_text("x")
    assert names(tmp_path) == [".other.1234.partial", "out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named(code: int, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(OSError, match=r"/out'$") as caught, new_dir(path):
        raise OSError(code, "no path here")
    assert caught.value.errno == code
    assert names(tmp_path) == []


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    error = FileNotFoundError(errno.ENOENT, "missing", "/source")
    with pytest.raises(FileNotFoundError) as caught, new_dir(tmp_path / "out"):
        raise error
    assert caught.value is error


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * 3_000_000)
    assert sha256(path) == hashlib.sha256(b"a" * 3_000_000).hexdigest()
