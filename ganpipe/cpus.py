"""How many CPUs this process may use: the machine's, limited by the process's affinity and its control groups.

`os.cpu_count()` is the machine's number, whatever `taskset`, a batch system or a container leaves of it. Nothing here
imports more than the standard library.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")


def usable_cpus() -> int:
    """CPUs that this process may use, at least 1; a part of one counts as one."""
    allowed, quota = allowed_cpus(), granted_cpus()
    return allowed if quota is None else min(allowed, max(1, math.ceil(quota)))


def allowed_cpus() -> int:
    """CPUs that this process may run on (`taskset`, cpusets)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted_cpus(proc: Path = _PROC) -> float | None:
    """CPU time that the control groups of this process grant it, in CPUs (1.5 for 150 ms in 100 ms): the lowest limit
    of its groups and of those around them. None where nothing limits it, or where the system has no control groups.

    Args:
        proc: the folder of the process in /proc.
    """
    quotas = [quota for folder in _groups(proc) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _groups(proc: Path) -> Iterator[Path]:
    """Folders of the control groups that may limit this process's CPUs, and of those around them (proc(5), cgroups(7)).

    A container may see only a part of the tree: the mount says at which group that part begins.
    """
    try:
        own = [line.split(":", 2)[1:] for line in (proc / "cgroup").read_text(encoding="utf-8").splitlines()]
        mounts = (proc / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for mount in mounts:
        fields, _, described = mount.partition(" - ")
        kind, *_, options = described.split(" ")
        begins, place = (_unescaped(field) for field in fields.split(" ")[3:5])
        # Version 2 has one tree, whose line names no controllers; version 1 has one for each.
        wanted = "" if kind == "cgroup2" else "cpu"
        if not (kind == "cgroup2" or (kind == "cgroup" and wanted in options.split(","))):
            continue
        for controllers, group in own:
            if wanted in controllers.split(","):
                within = PurePosixPath(group)
                within = within.relative_to(begins) if within.is_relative_to(begins) else PurePosixPath()
                folder = Path(place) / within.relative_to(within.root)
                yield from (path for path in (folder, *folder.parents) if path.is_relative_to(place))


def _unescaped(field: str) -> str:
    """A path of mountinfo, in which a space is `\\040`."""
    for character in " \t\n\\":
        field = field.replace(f"\\{ord(character):03o}", character)
    return field


def _quota(folder: Path) -> float | None:
    """CPU time by period of one group; None where it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
            )
    except OSError:  # the root of the tree has no limit
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
