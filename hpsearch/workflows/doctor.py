"""Checks of what a search needs on this machine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from hpsearch.errors import HpsearchError, StudyNotFoundError, UsageError
from hpsearch.formatting import many
from hpsearch.search.resources import bfloat16_instructions, free_memory, usable_cores
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.precision import choose_precision

LEAST_DISK = 1_000_000_000
"""Minimum number of free bytes for checkpoints, logs and predictions."""
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "afs", "9p", "fuse.sshfs", "lustre", "gpfs", "ceph", "beegfs")
"""File systems on which the locks of SQLite are not reliable."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        what: name of the check.
        ok: whether the check found no problem.
        says: what was found.
        fix: how to fix it; empty if `ok`.
    """

    what: str
    ok: bool
    says: str
    fix: str = ""


def check_machine(workspace: Workspace) -> list[Finding]:
    """Check everything that a search needs.

    Args:
        workspace: the database, the folders and the device to check.

    Returns:
        One finding for each check, in the order in which a search needs them.
    """
    checks: dict[str, Callable[[], str]] = {
        "Python": platform.python_version,
        "torch": lambda: _package("torch"),
        "torchvision": _torchvision,
        "optuna": lambda: _package("optuna"),
        "Fashion-MNIST": lambda: _data(workspace),
        "storage": lambda: _storage(workspace),
        "disk": lambda: _disk(workspace),
        "device": lambda: _device(workspace),
        "precision": lambda: _precision(workspace),
    }
    return [_finding(what, check) for what, check in checks.items()]


def _finding(what: str, check: Callable[[], str]) -> Finding:
    """Run a check and return its finding. A check returns a text, or raises an error if something is wrong."""
    try:
        return Finding(what=what, ok=True, says=check())
    except HpsearchError as error:
        return Finding(what=what, ok=False, says=error.message, fix=error.hint)


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise UsageError("is not installed", hint=f"pip install {name}") from None


def _torchvision() -> str:
    try:
        from hpsearch.training.data import download  # noqa: F401  # the import itself is the check
    except (ImportError, RuntimeError) as error:
        raise UsageError(str(error), hint="Install the torchvision version that belongs to your torch version.") from error
    return version("torchvision")


def _data(workspace: Workspace) -> str:
    from hpsearch.training.data.files import find

    found = find("fashion-mnist", workspace.data)
    if found is None:
        raise UsageError("was not found", hint="`hpsearch run` downloads it; on Debian, `apt-get install dataset-fashion-mnist`.")
    return f"in {next(iter(found.paths.values())).parent}, checksums are correct"


def _storage(workspace: Workspace) -> str:
    database = workspace.database
    try:
        store = workspace.open()
        names = store.study_names()
        store.dispose()
    except StudyNotFoundError:
        if isinstance(database, PostgresServer):
            return f"{database.display_url} is there; the first search creates its tables"
        folder = next(parent for parent in database.path.parents if parent.exists())
        says = f"the first search creates {database.path}"
        if not os.access(folder, os.W_OK):
            raise UsageError(says, hint=f"Make the folder {folder} writable.") from None
        return says
    kind = "" if isinstance(database, PostgresServer) else _file_system(str(database.path))
    if kind in NETWORK_FILE_SYSTEMS:
        hint = "Its locks are not reliable. Put the database on a local disk with --storage."
        raise UsageError(f"{store} is on a network file system ({kind})", hint=hint)
    return f"{store}, {many(len(names), 'study', 'studies')}"


def _file_system(path: str) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if path.startswith(part.mountpoint.rstrip("/") + "/")]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _disk(workspace: Workspace) -> str:
    runs = workspace.runs.absolute()
    free = shutil.disk_usage(next(parent for parent in [runs, *runs.parents] if parent.exists())).free
    says = f"{free / 1e9:.0f} GB free for {workspace.runs}"
    if free < LEAST_DISK:
        raise UsageError(says, hint="Free some space, or choose another disk with --runs.")
    return says


def _device(workspace: Workspace) -> str:
    from hpsearch.training.device import resolve_device

    return f"{resolve_device(workspace.device)}; {many(usable_cores(), 'core')}, {free_memory() / 1e9:.0f} GB of memory free"


def _precision(workspace: Workspace) -> str:
    faster = choose_precision(workspace.device)
    if not faster:
        found = f"has {bfloat16_instructions()}" if bfloat16_instructions() else "has no instructions for bfloat16"
        return f"new studies train in float32; the processor {found}"
    return f"new studies train {' and '.join(faster)} in bfloat16, because the processor has {bfloat16_instructions()}, and other models in float32"
