"""Processors under affinity masks and quotas, from the kernel's files as containers see them."""

import os
from pathlib import Path

import pytest

from relevance.cpus import available_cpus, limit_threads


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V1 = "11:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n"


@pytest.mark.parametrize(
    ("memberships", "files", "wanted"),
    [
        pytest.param("0::/\n", {}, 8, id="no files"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, 8, id="v2 without a limit"),
        pytest.param("0::/\n", {"cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param("0::/\n", {"cpu.max": "250000 100000\n"}, 2, id="v2, rounded down"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000\n"}, 1, id="v2, less than one"),
        pytest.param("0::/\n", {"cpu.max": "9900000 100000\n"}, 8, id="v2, more than there are"),
        pytest.param(
            "0::/pod/box\n",
            {"pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 100000"},
            3,
            id="v2, the limit of the group above",
        ),
        pytest.param("0::/\n", {"cpu.max": "?\n"}, 8, id="v2 in an unknown form"),
        pytest.param(
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            8,
            id="v1 without a limit",
        ),
        pytest.param(
            V1,
            {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"},
            4,
            id="v1, seen from inside",
        ),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "150000",
                "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "50000",
            },
            3,
            id="v1, seen from outside",
        ),
        pytest.param(
            "1:cpu:/\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
            id="both versions",
        ),
    ],
)
def test_the_quota_limits_the_processors(
    tmp_path: Path, memberships: str, files: dict[str, str], wanted: int
) -> None:
    write(tmp_path, {"memberships": memberships})
    write(tmp_path / "cgroup", files)
    assert available_cpus(tmp_path / "cgroup", tmp_path / "memberships") == wanted


def test_without_control_groups_the_affinity_mask_decides(tmp_path: Path) -> None:
    assert available_cpus(tmp_path, tmp_path / "none") == 8


def test_without_a_mask_every_processor_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cpus(tmp_path, tmp_path / "none") == 3


def test_libraries_make_as_many_threads_as_processors_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "0")  # so that it is put back
        monkeypatch.delenv(name)
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert os.environ["RAYON_NUM_THREADS"] == str(available_cpus())
