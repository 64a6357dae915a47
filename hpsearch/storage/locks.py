"""Locks that are released when the process that holds them ends. So hpsearch can tell a dead worker from a slow worker.

With SQLite, a lock is a `flock` on a file beside the database. With PostgreSQL, a lock is an advisory lock of the server
(`advisory_locks.py`). The kernel or the server releases a lock when its holder ends. So no heartbeats are needed.

A held lock is called a lease. The lease of a trial is held by the worker that trains the trial. A lock can be lost: a connection
breaks, or somebody deletes the file of the lock. So a worker checks its lease before it writes.

A process that was forked, for example by a process pool in user code, holds no lock of its parent.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from hpsearch.errors import LeaseLostError

LOCK_POLL = 0.02
"""Seconds between two tries for a lock that another process holds for a moment."""
CREATION_LOCK = "create"
"""Name of the lock for making tables and studies."""
claim_lock = "study-{}.claim".format
"""Returns the name of the lock for claiming trials of a study. Takes the id of the study."""
trial_lock = "trial-{}.lease".format
"""Returns the name of the lock of the worker that trains a trial. Takes the id of the trial."""
manual_lock = "trial-{}.by-hand".format
"""Returns the name of the lock of the command that queued a trial by hand and waits for its end. Takes the id of the trial."""
sync_lock = "study-{}.feed".format
"""Returns the name of the lock for writing the dashboard's data of a study. Takes the id of the study."""


class Lease(Protocol):
    """A held lock. It ends when `release` is called, or when the process ends."""

    def release(self) -> None:
        """Release the lock."""

    @property
    def is_held(self) -> bool:
        """Whether this process still holds the lock."""


def require_held(lease: Lease) -> None:
    """Raise an error if the lock of a trial is lost. Another worker may then have taken the trial.

    Args:
        lease: the lock of the trial.

    Raises:
        LeaseLostError: the lock is lost.
    """
    if not lease.is_held:
        raise LeaseLostError("its lock was lost, so another worker may have taken it")


class Locks(ABC):
    """The locks of one database, as one process takes and holds them."""

    @abstractmethod
    def acquire(self, name: str) -> Lease | None:
        """Take a lock without waiting.

        Args:
            name: name of the lock.

        Returns:
            The held lock, or None if another process or this process already holds the lock.

        Raises:
            OSError: the lock cannot be made.
            OutageError: the server cannot be reached.
            LeaseLostError: the connection was lost, and with it the locks that this process held.
        """

    @contextmanager
    def hold(self, name: str) -> Iterator[Lease]:
        """Wait for a lock and hold it in a block.

        Args:
            name: name of the lock.

        Yields:
            The held lock.

        Raises:
            OSError: the lock cannot be made.
            OutageError: the server cannot be reached.
            LeaseLostError: the connection was lost, and with it the locks that this process held.
        """
        while (lease := self._wait(name)) is None:
            pass
        try:
            yield lease
        finally:
            lease.release()

    @abstractmethod
    def _wait(self, name: str) -> Lease | None:
        """Wait for a lock for a short time. Return None if the lock is still held after that time."""

    @abstractmethod
    def require_held(self) -> None:
        """Raise an error if this process has lost its locks.

        Raises:
            LeaseLostError: another process may now hold the locks that this process acquired.
        """

    @abstractmethod
    def clean_up(self) -> None:
        """Remove the empty folder that unused locks leave behind."""

    @property
    def in_use(self) -> bool:
        """Whether another process may be making the database."""
        return False


class FileLease:
    """A held lock on a file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _file_leases.add(self)

    @property
    def is_held(self) -> bool:
        """Whether the locked file still has its name. If the file was deleted, another process can lock a new file of that name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock and remove its file."""
        # Remove the file before releasing the lock. Another process may have just opened the file.
        # It then gets a lock on a file without a name, and tries again.
        if self.is_held:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file. The lock ends when no process has the file open any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        _file_leases.discard(self)


_file_leases: weakref.WeakSet[FileLease] = weakref.WeakSet()
"""The locks that this process holds on files."""


def _close_in_child() -> None:
    """Close the files of all locks in a forked process, because a lock lasts as long as any process has its file open."""
    for lease in list(_file_leases):
        lease.close()


os.register_at_fork(after_in_child=_close_in_child)


class FileLocks(Locks):
    """The locks of one SQLite database, in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def acquire(self, name: str) -> FileLease | None:
        path = self.folder / name
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:  # another process has just removed the folder
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return FileLease(path, descriptor)
            os.close(descriptor)

    def _wait(self, name: str) -> FileLease | None:
        lease = self.acquire(name)
        if lease is None:
            time.sleep(LOCK_POLL)
        return lease

    def require_held(self) -> None:
        for lease in list(_file_leases):
            if lease.path.parent == self.folder:
                require_held(lease)

    @property
    def in_use(self) -> bool:
        """Whether the folder exists."""
        return self.folder.exists()

    def clean_up(self) -> None:
        """Remove the folder if it holds no lock."""
        with suppress(OSError):
            self.folder.rmdir()
