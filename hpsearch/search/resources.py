"""Find the cores, the memory and the instructions that this process can use.

A container limits cores and memory by control groups, of version 1 or 2 (`man cgroups`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path("/")
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
"""The flags in `/proc/cpuinfo` of instructions with which torch's convolutions compute in bfloat16."""
V2 = ""
"""The name in `/proc/self/cgroup` for all controllers of version 2."""


def usable_cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process can use.

    Args:
        root: the folder of `proc` and `sys`.

    Returns:
        The smaller of the cores that this process may run on and the processor time that its control groups allow; at least 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [float(cores)]
    for group in _groups(root, V2):
        with suppress(OSError, ValueError):  # without a limit, `max` is no number
            quota, period = map(int, (group / "cpu.max").read_text().split())
            limits.append(quota / period)
    for group in _groups(root, "cpu"):
        with suppress(OSError, ValueError):
            quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
            limits += [quota / period] if quota > 0 else []  # -1 means no limit
    return max(1, int(min(limits)))


def free_memory(root: Path = ROOT) -> int:
    """Return the memory that this process can still use.

    Args:
        root: the folder of `proc` and `sys`.

    Returns:
        Bytes; the smaller of the free memory of the machine and what its control groups leave.
    """
    free: list[int] = [psutil.virtual_memory().available]
    names = (
        (V2, "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for controller, limit, used, cache in names:
        for group in _groups(root, controller):
            with suppress(OSError, ValueError, KeyError):
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                # The cache of files counts as used, but the system frees it for a process that needs memory.
                free.append(_number(group / limit) - _number(group / used) + int(statistics[cache]))
    return max(0, min(free))


def bfloat16_instructions(root: Path = ROOT) -> str:
    """Return the instructions for bfloat16 of this processor.

    Args:
        root: the folder of `proc`.

    Returns:
        The flag in `/proc/cpuinfo`; empty if there is none, or if the system has no such file.
    """
    with suppress(OSError):
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        flags = {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
        return next((flag for flag in BFLOAT16_FLAGS if flag in flags), "")
    return ""


def _number(file: Path) -> int:
    return int(file.read_text())


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Find the folders of the control groups that limit this process: its own group and all groups around it."""
    with suppress(OSError):
        of_process = (line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines())
        paths = [Path(path) for _, controllers, path in of_process if controller in controllers.split(",")]
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            mount, _, options = line.partition(" - ")
            _, _, _, top, folder, *_ = mount.split()
            kind, _, controllers = options.split(maxsplit=2)
            if kind != ("cgroup" if controller else "cgroup2") or controller not in [*controllers.split(","), V2]:
                continue
            for path in paths:
                # In a container, the top of the mount is often the group of the container itself.
                inside = path.relative_to(top) if path.is_relative_to(top) else Path()
                for each in (inside, *inside.parents):
                    yield root / folder.lstrip("/") / each
