"""Who is alive: locks that die with the process that holds them.

On one machine they are `flock`s on files beside the database, of a PostgreSQL server's database the
server's own (`advisory_locks.py`). No heartbeats and no clocks: the kernel, or the server, lets go of
a lock at the very moment its holder is gone, and not before.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from hpsearch.errors import LeaseLostError

LOCK_POLL = 0.02
"""Seconds between two tries for a lock that another process holds for a moment."""


class Lease(Protocol):
    """A lock that is held; it ends with `release`, or with the process."""

    def release(self) -> None:
        """Let go of the lock."""

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have the lock by now."""


def require_held(lease: Lease) -> None:
    """Refuse to write of a trial that somebody else may train by now.

    Raises:
        LeaseLostError: its lease is lost.
    """
    if not lease.is_held:
        raise LeaseLostError("the lease of the trial was lost with its connection")


class Locks(Protocol):
    """The locks of one database."""

    def acquire(self, name: str) -> Lease | None:
        """The lock of that name, or None when somebody holds it."""

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Wait for the lock of that name, and hold it for the length of a block."""

    def require_held(self) -> None:
        """Refuse to go on where locks were lost.

        Raises:
            LeaseLostError: locks that were acquired here, and not released, may be somebody else's by now.
        """

    def clean_up(self) -> None:
        """Leave nothing behind where no lock is held."""

    @property
    def in_use(self) -> bool:
        """Whether somebody may just be making the database."""


class FileLease:
    """A lock on a file that is held."""

    is_held = True

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock and remove its file."""
        # The file goes first: who opens it in between gets a lock on a nameless file, and tries again.
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class FileLocks:
    """The locks of one SQLite database, in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def acquire(self, name: str) -> FileLease | None:
        """The lock of that name, or None when somebody holds it."""
        path = self.folder / name
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:  # somebody tidied up in between
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _is_same_file(descriptor, path):
                return FileLease(path, descriptor)
            os.close(descriptor)

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait for the lock of that name, and hold it for the length of a block."""
        while (lease := self.acquire(name)) is None:
            time.sleep(LOCK_POLL)
        try:
            yield
        finally:
            lease.release()

    def require_held(self) -> None:
        """Nothing: while the process lives, so do its locks."""

    @property
    def in_use(self) -> bool:
        """Whether the folder is there."""
        return self.folder.exists()

    def clean_up(self) -> None:
        """Remove the folder if no lock lies in it."""
        with suppress(OSError):
            self.folder.rmdir()


def claim_lock(study_id: int) -> str:
    """The lock under which one trial at a time of a study is taken up."""
    return f"study-{study_id}.claim"


def trial_lock(trial_id: int) -> str:
    """The lock of the worker that trains a trial."""
    return f"trial-{trial_id}.lease"


def manual_lock(trial_id: int) -> str:
    """The lock of who queued a trial by hand and waits for it."""
    return f"trial-{trial_id}.by-hand"


def sync_lock(study_id: int) -> str:
    """The lock under which what the dashboard shows of a study is written."""
    return f"study-{study_id}.feed"


CREATION_LOCK = "create"
"""The lock under which tables and studies are made."""


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
