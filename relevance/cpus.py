"""How many processors this process may keep busy: a container sees all of its host's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIPS = Path("/proc/self/cgroup")
_THREAD_COUNTS = (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",  # of the tokenizers
)


def available_cpus(cgroups: Path = _CGROUPS, memberships: Path = _MEMBERSHIPS) -> int:
    """Processors that may be used at once: the affinity mask under the control groups' quota.

    A quota is rounded down, because a thread that waits for one whose time is used up loses more
    than the share of a processor that is left over.

    Args:
        cgroups: Where control groups are mounted, version 1, 2 or both.
        memberships: The kernel's list of the groups of this process.

    Returns:
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:  # not Linux
        allowed = os.cpu_count() or 1
    quotas = (_quota(group) for group in _groups(cgroups, memberships))
    return max(1, math.floor(min([float(allowed), *quotas])))


def limit_threads() -> None:
    """Tell the libraries that compute how many threads to make; call it before importing them.

    They would make one for each of the host's processors. What the environment says already stays.
    """
    for name in _THREAD_COUNTS:
        os.environ.setdefault(name, str(available_cpus()))


def _groups(cgroups: Path, memberships: Path) -> Iterator[Path]:
    """Directories of the group that limits processor time, and of all groups above it.

    A container may see the path that its host has for it, which does not exist inside; what is
    mounted there is the container's own group, so the walk up finds it.
    """
    try:
        lines = memberships.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [cgroups, cgroups / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [cgroups / controllers, cgroups / "cpu"]
        else:
            continue
        below = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / part for part in (below, *below.parents))


def _quota(group: Path) -> float:
    """Processors' worth of time that ``group`` gets; infinite without a limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")
                for name in ("quota", "period")
            )
        # without a limit version 2 says max, version 1 says -1
        return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        # no such group, or a kernel's file in a form we do not know: no limit we could name
        return math.inf
