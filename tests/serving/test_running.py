"""The experiment file in force."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.breaker import Breaking
from serving.running import Running
from serving.upstreams import Upstream, client
from tests.serving.live import experiments, until, write

URLS = {"champion": "http://127.0.0.1:9", "challenger": "http://127.0.0.1:9"}


async def following(path: Path, check: Any) -> None:
    async with client() as session:
        running = Running(path, lambda name, url: Upstream(name, url, session, Breaking()))
        task = asyncio.create_task(running.watch(0.01))
        try:
            await check(running)
            assert not task.done()
        finally:
            task.cancel()


def test_a_step_of_a_ramp_takes_force_at_its_instant(tmp_path: Path) -> None:
    step = {"at": datetime.now(UTC) + timedelta(seconds=1), "range": [0, 10_000]}
    path = write(tmp_path / "e.yaml", experiments(URLS, range=[0, 0], ramp=[step]))

    async def check(running: Running) -> None:
        assert running.now.split.assign("shopper-1") == ()
        await until(lambda: running.now.split.assign("shopper-1"))
        assert datetime.now(UTC) >= step["at"]  # type: ignore[operator]

    asyncio.run(following(path, check))


def test_what_a_breaker_knows_outlives_a_new_file_but_not_a_new_url(tmp_path: Path) -> None:
    content = experiments(URLS)
    path = write(tmp_path / "e.yaml", content)

    async def check(running: Running) -> None:
        before = running.now.upstreams
        moved = {**content["scorers"], "challenger": {"url": "http://127.0.0.1:10"}}
        write(path, content | {"version": 2, "scorers": moved})
        await until(lambda: running.now.split.config_version == 2)
        assert running.now.upstreams["champion"] is before["champion"]
        assert running.now.upstreams["challenger"] is not before["challenger"]

    asyncio.run(following(path, check))


def test_a_file_that_is_touched_is_not_refused(tmp_path: Path) -> None:
    content = experiments(URLS)
    path = write(tmp_path / "e.yaml", content)

    async def check(running: Running) -> None:
        path.write_text("half", encoding="utf-8")
        await until(lambda: running.refused)
        write(path, content)
        await until(lambda: running.refused is None)

    asyncio.run(following(path, check))


def test_no_file_is_a_mistake_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Running(tmp_path / "nowhere.yaml", lambda name, url: pytest.fail("no scorer is wanted"))
