"""The limits of control groups: version 2 and the versions side by side in made-up folders, version 1 as the kernel has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hpsearch.search.resources import bfloat16_instructions, free_memory, usable_cores
from hpsearch.search.worker_pool import default_workers
from tests.support.small_study import ROOT

MOUNT = "30 20 0:26 {top} /sys/fs/cgroup{folder} rw,nosuid - {kind} cgroup {options}"
CORES = len(os.sched_getaffinity(0))
MB = 1_000_000


def system(root: Path, group: str, mount: str, **files: str) -> Path:
    """Make the files of the kernel for a process in a control group. `name__file` stands for `name.file`, and `/` for the folder."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"{group}\n")
    (root / "proc/self/mountinfo").write_text(f"25 20 0:5 / /dev rw - devtmpfs udev rw\n{mount}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = MOUNT.format(top="/", folder="", kind="cgroup2", options="rw,nsdelegate")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu__max": "100000 100000"}, 1),
        ({"cpu__max": "50000 100000"}, 1),
        ({"cpu__max": "max 100000"}, CORES),
        ({"a/b/cpu__max": "max 100000", "a/cpu__max": "100000 100000"}, 1),
        ({"other/cpu__max": "100000 100000"}, CORES),
        ({"cpu__max": "?"}, CORES),
        ({}, CORES),
    ],
    ids=["one core", "half a core", "no limit", "limit of the group around it", "limit of another group", "unreadable", "no file"],
)
def test_the_cores_are_those_that_the_groups_allow(files: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert usable_cores(system(tmp_path, "0::/a/b", V2, **files)) == cores


@pytest.mark.skipif(CORES < 2, reason="one core is no limit here")
def test_version_1_in_a_container_that_sees_the_path_of_its_host(tmp_path: Path) -> None:
    mount = MOUNT.format(top="/docker/abc", folder="/cpu,cpuacct", kind="cgroup", options="rw,cpu,cpuacct")
    files = {"cpu,cpuacct/cpu__cfs_quota_us": "150000\n", "cpu,cpuacct/cpu__cfs_period_us": "100000\n"}
    assert usable_cores(system(tmp_path, "4:cpu,cpuacct:/docker/abc", mount, **files)) == 1


def test_the_cache_of_files_counts_as_free_memory(tmp_path: Path) -> None:
    files = {"memory__max": f"{300 * MB}", "memory__current": f"{250 * MB}", "memory__stat": f"anon 1\ninactive_file {100 * MB}\n"}
    assert free_memory(system(tmp_path, "0::/", V2, **files)) == 150 * MB


def test_without_a_limit_the_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    files = {"memory__max": "max", "memory__current": "1", "memory__stat": "inactive_file 0\n"}
    found = free_memory(system(tmp_path, "0::/", V2, **files))
    assert found == pytest.approx(psutil.virtual_memory().available, rel=0.5)


@pytest.fixture
def limited() -> Iterator[Path]:
    """A control group of the kernel with one core and 1.5 GB, as a folder with a file `tasks` for each controller."""
    folders = [Path("/sys/fs/cgroup") / name / f"hpsearch-test-{os.getpid()}" for name in ("cpu", "memory")]
    try:
        for folder in folders:
            folder.mkdir()
        (folders[0] / "cpu.cfs_quota_us").write_text("100000")
        (folders[1] / "memory.limit_in_bytes").write_text(str(1500 * MB))
    except OSError:
        pytest.skip("control groups of version 1 cannot be made here")
    yield folders[0]
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@pytest.mark.skipif(CORES < 2, reason="one core is no limit here")
def test_a_process_under_real_limits_plans_fewer_workers(limited: Path) -> None:
    code = f"""
import os
for name in ("cpu", "memory"):
    open(f"/sys/fs/cgroup/{{name}}/{limited.name}/tasks", "w").write(str(os.getpid()))
from hpsearch.search.resources import free_memory, usable_cores
print(usable_cores(), free_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    cores, memory = map(int, done.stdout.split())
    assert cores == 1
    assert 1300 * MB < memory <= 1500 * MB


def test_never_more_workers_than_cores() -> None:
    found = default_workers(10_000)
    assert found.count <= CORES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_fp16\n", "avx512_bf16"),
        ("flags : avx512_bf16 amx_bf16 amx_tile", "amx_bf16"),
        ("flags : avx512f avx512_vnni\nbugs : avx512_bf16", ""),
        ("model name : \udcff\nFeatures : bf16", ""),
        (None, ""),
    ],
    ids=["AVX-512", "AMX", "neither", "another architecture", "no file"],
)
def test_the_instructions_for_bfloat16_are_read_from_the_flags(text: str | None, found: str, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    if text is not None:
        (tmp_path / "proc/cpuinfo").write_bytes(text.encode(errors="surrogateescape"))
    assert bfloat16_instructions(tmp_path) == found
