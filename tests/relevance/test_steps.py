"""Steps that several processes make."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from relevance import steps as relevance_steps
from relevance.steps import Step, locked, make_all


def silent(_: str) -> None:
    pass


def fake_steps(out: Path) -> list[Step]:
    """Two chains of four steps that share the first, slow enough for two processes to meet."""

    def step(name: str, *inputs: Step) -> Step:
        def make() -> None:
            time.sleep(0.05)
            with (out / "made.txt").open("a") as file:
                file.write(f"{name} {os.getpid()}\n")
            (out / name).touch()

        return Step(name, out / name, inputs, make)

    first = step("first")
    chains = []
    for name in ("a", "b"):
        last = first
        for number in range(3):
            last = step(f"{name}{number}", last)
            chains.append(last)
    return [first, *chains]


def test_two_processes_make_each_step_once_and_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relevance_steps, "_POLL_SECONDS", 0.01)
    steps = fake_steps(tmp_path)
    fork = multiprocessing.get_context("fork")
    running = [
        fork.Process(target=make_all, args=(steps, tmp_path / "locks", silent)) for _ in range(2)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=30)
    assert [process.exitcode for process in running] == [0, 0]
    made = [line.split() for line in (tmp_path / "made.txt").read_text().splitlines()]
    assert sorted(name for name, _ in made) == sorted(step.name for step in steps)
    assert {int(pid) for _, pid in made} == {process.pid for process in running}


def test_a_step_that_another_process_makes_is_waited_for(tmp_path: Path) -> None:
    (step, *_) = fake_steps(tmp_path)
    said: list[str] = []
    with locked(tmp_path / "locks" / "first"):
        waiting = threading.Thread(target=make_all, args=([step], tmp_path / "locks", said.append))
        waiting.start()
        while not said:
            time.sleep(0.01)
        assert not step.place.exists()
    waiting.join(timeout=30)
    assert said[0] == "waiting for another process: first"
    assert step.place.exists()
