"""What a search needs of this machine, examined one by one."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from hpsearch.errors import HpsearchError, StudyNotFoundError
from hpsearch.formatting import many
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.workspace import Workspace

LEAST_PYTHON = (3, 11)
LEAST_DISK = 1_000_000_000
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "afs", "9p", "fuse.sshfs", "lustre", "gpfs", "ceph", "beegfs")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing examined: whether it is in order, what was found, and how to mend it."""

    what: str
    ok: bool
    says: str
    fix: str = ""


def check_machine(workspace: Workspace) -> list[Finding]:
    """All findings, in the order in which a search would stumble over them."""
    checks: list[Callable[[], Finding]] = [
        _python,
        lambda: _package("torch"),
        _torchvision,
        lambda: _package("optuna"),
        lambda: _data(workspace),
        lambda: _storage(workspace),
        lambda: _disk(workspace),
        lambda: _device(workspace),
    ]
    return [check() for check in checks]


def _python() -> Finding:
    ok = sys.version_info >= LEAST_PYTHON
    return Finding(what="Python", ok=ok, says=platform.python_version(), fix="" if ok else "Install Python 3.11 or newer.")


def _package(name: str) -> Finding:
    try:
        return Finding(what=name, ok=True, says=version(name))
    except PackageNotFoundError:
        return Finding(what=name, ok=False, says="is not installed", fix=f"pip install {name}")


def _torchvision() -> Finding:
    try:
        from hpsearch.training.data import download as vision  # noqa: F401  # imported for what it says when it fails
    except (ImportError, RuntimeError) as error:
        return Finding(what="torchvision", ok=False, says=str(error), fix="Install the torchvision that goes with your torch.")
    return Finding(what="torchvision", ok=True, says=version("torchvision"))


def _data(workspace: Workspace) -> Finding:
    from hpsearch.training.data.files import find

    try:
        found = find("fashion-mnist", workspace.data)
    except HpsearchError as error:
        return Finding(what="Fashion-MNIST", ok=False, says=error.message, fix=error.hint)
    if found is None:
        fix = "`hpsearch run` downloads it; on Debian, `apt-get install dataset-fashion-mnist`."
        return Finding(what="Fashion-MNIST", ok=False, says="was not found", fix=fix)
    return Finding(what="Fashion-MNIST", ok=True, says=f"in {next(iter(found.paths.values())).parent}, checksums right")


def _storage(workspace: Workspace) -> Finding:
    try:
        database = workspace.database
        store = workspace.open()
        names = store.study_names()
        store.dispose()
    except StudyNotFoundError:
        if isinstance(database, PostgresServer):
            return Finding(what="storage", ok=True, says=f"{database.display_url} is there, its tables are yet to be made")
        folder = next(parent for parent in database.path.parents if parent.exists())
        ok = os.access(folder, os.W_OK)
        return Finding(
            what="storage", ok=ok, says=f"{database.path} is yet to be made", fix="" if ok else f"{folder} cannot be written to."
        )
    except HpsearchError as error:
        return Finding(what="storage", ok=False, says=error.message, fix=error.hint)
    kind = "" if isinstance(database, PostgresServer) else _file_system(str(database.path))
    if kind in NETWORK_FILE_SYSTEMS:
        fix = "Its locks may lie. Put the database on a local disk with --storage."
        return Finding(what="storage", ok=False, says=f"{store} is on a network file system ({kind})", fix=fix)
    return Finding(what="storage", ok=True, says=f"{store}, {many(len(names), 'study', 'studies')}")


def _file_system(path: str) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if path.startswith(part.mountpoint.rstrip("/") + "/")]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _disk(workspace: Workspace) -> Finding:
    folder = next(parent for parent in [workspace.runs.absolute(), *workspace.runs.absolute().parents] if parent.exists())
    free = shutil.disk_usage(folder).free
    ok = free >= LEAST_DISK
    return Finding(
        what="disk",
        ok=ok,
        says=f"{free / 1e9:.0f} GB free for {workspace.runs}",
        fix="" if ok else "Make room, or choose another disk with --runs.",
    )


def _device(workspace: Workspace) -> Finding:
    from hpsearch.training.device import resolve_device

    try:
        device = resolve_device(workspace.device)
    except HpsearchError as error:
        return Finding(what="device", ok=False, says=error.message, fix=error.hint)
    memory = psutil.virtual_memory().available / 1e9
    return Finding(what="device", ok=True, says=f"{device}; {os.cpu_count()} cores, {memory:.0f} GB of memory free")
