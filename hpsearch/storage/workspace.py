"""Where a study lives: its database with its locks, its folder of runs, its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hpsearch.config.paths import DEFAULT_RUNS, RunPaths, lock_folder
from hpsearch.errors import StorageError
from hpsearch.storage.advisory_locks import AdvisoryLocks
from hpsearch.storage.database import Store, database_at, open_store, storage_url
from hpsearch.storage.locks import CREATION_LOCK, FileLocks, Locks
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.retry import RetryPolicy
from hpsearch.storage.sqlite import OTHER_PATH_HINT, SqliteFile


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a study lives: its database, its folder of runs, its data.

    Attributes:
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        runs: the folder of runs.
        data: the folder of the data set; searched for by default.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        wait_for_server: whether `open` waits for a server that is down; a worker that starts in the middle of a run does.
        component_folder: the folder of the component files, if it is not that of the study file.
    """

    storage: str | None = None
    runs: Path = DEFAULT_RUNS
    data: Path | None = None
    device: str = "auto"
    wait_for_server: bool = False
    component_folder: Path | None = None

    @property
    def paths(self) -> RunPaths:
        """The layout of the folder of runs."""
        return RunPaths(self.runs)

    @property
    def url(self) -> str:
        """The storage's URL, with its password if it has one."""
        return storage_url(self.storage, self.paths)

    @cached_property
    def database(self) -> SqliteFile | PostgresServer:
        """The database of the URL."""
        return database_at(self.url)

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        """How long this process waits for the database."""
        return RetryPolicy(max_wait=self.database.max_wait)

    @cached_property
    def locks(self) -> Locks:
        """The locks of the database."""
        if isinstance(self.database, PostgresServer):
            return AdvisoryLocks(self.database, self.retry_policy)
        return FileLocks(lock_folder(self.database.path))

    def open(self, *, create: bool = False, trimmed: bool = False) -> Store:
        """Open the storage.

        Args:
            create: whether to make the database, or its tables, if they do not exist.
            trimmed: whether to keep only the part of finished trials in memory that a search needs.

        Returns:
            The store.

        Raises:
            StorageError: the database cannot be used.
            StudyNotFoundError: it does not exist, and `create` is false.
            OutageError: the server did not come up in time.
        """
        if self.wait_for_server:
            self.database.wait_for(self.retry_policy)
        store = open_store(self.url, create=create, trimmed=trimmed, retry_policy=self.retry_policy)
        # Check our locks before retrying after an outage: without them the write is another worker's.
        self.retry_policy.before_retry = self.locks.require_held
        return store

    def open_or_create(self) -> Store:
        """Open the storage, or make it; only one process at a time does.

        Returns:
            The store.

        Raises:
            StorageError: the database cannot be used.
        """
        self.check()
        try:
            with self.creation_lock():
                return self.open(create=True)
        finally:
            self.locks.clean_up()

    def check(self) -> None:
        """Refuse a database that cannot be used, before anything is written.

        Raises:
            StorageError: the reason.
        """
        if not self.locks.in_use:  # otherwise another process may be making the database
            self.database.check(create=True)

    @contextlib.contextmanager
    def creation_lock(self) -> Iterator[None]:
        """Make tables or studies in a block, as the only process that does.

        Yields:
            Nothing.

        Raises:
            StorageError: the lock cannot be made.
        """
        try:
            with self.locks.hold(CREATION_LOCK):
                yield
        except OSError as error:
            message = f"cannot write beside the database {self.database.display_url}: {error.strerror}"
            raise StorageError(message, hint=OTHER_PATH_HINT) from error
