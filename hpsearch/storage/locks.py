"""Locks that end with the process that holds them: they tell a dead worker from a slow one.

With SQLite they are `flock`s on files beside the database. With PostgreSQL they are advisory locks of the server
(`advisory_locks.py`). The kernel or the server releases a lock when its holder ends. So there are no heartbeats.
"""

from __future__ import annotations

import fcntl
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from hpsearch.errors import LeaseLostError

LOCK_POLL = 0.02
"""Seconds between two tries for a lock that another process holds for a moment."""
CREATION_LOCK = "create"
"""The lock for making tables and studies."""
claim_lock = "study-{}.claim".format
"""Takes the id of a study: the lock for claiming one of its trials."""
trial_lock = "trial-{}.lease".format
"""Takes the id of a trial: the lock of the worker that trains it."""
manual_lock = "trial-{}.by-hand".format
"""Takes the id of a trial: the lock of the command that queued it by hand and waits for it."""
sync_lock = "study-{}.feed".format
"""Takes the id of a study: the lock for writing what the dashboard shows of it."""


class Lease(Protocol):
    """A held lock. It ends with `release`, or with the process."""

    def release(self) -> None:
        """Release the lock."""

    @property
    def is_held(self) -> bool:
        """Whether this process still holds the lock."""


def require_held(lease: Lease) -> None:
    """Refuse to write to a trial that another worker may have taken.

    Args:
        lease: the lock of the trial.

    Raises:
        LeaseLostError: the lock is lost.
    """
    if not lease.is_held:
        raise LeaseLostError("the lease of the trial was lost with its connection")


class Locks(ABC):
    """The locks of one database, for one process."""

    @abstractmethod
    def acquire(self, name: str) -> Lease | None:
        """Take a lock without waiting.

        Args:
            name: of the lock.

        Returns:
            The held lock, or None if another process or this one holds it.

        Raises:
            OSError: the lock cannot be made.
            OutageError: the server cannot be reached.
            LeaseLostError: the connection was lost, and other locks with it.
        """

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait for a lock and hold it in a block.

        Args:
            name: of the lock.

        Yields:
            Nothing.

        Raises:
            OSError: the lock cannot be made.
            OutageError: the server cannot be reached.
            LeaseLostError: the connection was lost, and other locks with it.
        """
        while (lease := self._wait(name)) is None:
            pass
        try:
            yield
        finally:
            lease.release()

    @abstractmethod
    def _wait(self, name: str) -> Lease | None:
        """Wait for a lock for a moment; returns None if another holder still has it."""

    @abstractmethod
    def require_held(self) -> None:
        """Refuse to go on after locks were lost.

        Raises:
            LeaseLostError: another process may have the locks that this one acquired.
        """

    @abstractmethod
    def clean_up(self) -> None:
        """Remove what unused locks leave behind."""

    @property
    def in_use(self) -> bool:
        """Whether another process may be making the database."""
        return False


class FileLease:
    """A held lock on a file."""

    is_held = True

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock and remove its file."""
        # The file is removed first. A process that opens it in between gets a lock on a nameless file, and tries again.
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


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
        """Do nothing: file locks last as long as the process."""

    @property
    def in_use(self) -> bool:
        """Whether the folder exists."""
        return self.folder.exists()

    def clean_up(self) -> None:
        """Remove the folder if it holds no lock."""
        with suppress(OSError):
            self.folder.rmdir()
