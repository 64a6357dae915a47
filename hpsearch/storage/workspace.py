"""Where a study lives: its storage with its locks, its folder of runs, its data."""

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
    """Where a study lives: its storage, its folder of runs, its data.

    Attributes:
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        data: the folder of the data set; looked for by default.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        wait_for_server: whether a server that is away from the start is waited for, as by a worker that begins in the middle of a run.
        component_folder: the folder of a stored study's component files, where that is another one here than where its study file was.
    """

    storage: str | None = None
    runs: Path = DEFAULT_RUNS
    data: Path | None = None
    device: str = "auto"
    wait_for_server: bool = False
    component_folder: Path | None = None

    @property
    def paths(self) -> RunPaths:
        """What lies where."""
        return RunPaths(self.runs)

    @property
    def url(self) -> str:
        """The storage's URL, with its password if it has one."""
        return storage_url(self.storage, self.paths)

    @cached_property
    def database(self) -> SqliteFile | PostgresServer:
        """The database behind the URL."""
        return database_at(self.url)

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        """How long this process waits for it."""
        return RetryPolicy(max_wait=self.database.max_wait)

    @cached_property
    def locks(self) -> Locks:
        """The locks of the database."""
        database = self.database
        if isinstance(database, PostgresServer):
            return AdvisoryLocks(database, self.retry_policy)
        return FileLocks(lock_folder(database.path))

    def open(self, *, create: bool = False, trimmed: bool = False) -> Store:
        """The storage; lean for a process that lives as long as a search."""
        if self.wait_for_server:
            self.database.wait_for(self.retry_policy)
        store = open_store(self.url, create=create, trimmed=trimmed, retry_policy=self.retry_policy)
        # What a call would write after an outage is nobody's to write whose lock was lost in it.
        self.retry_policy.before_retry = self.locks.require_held
        return store

    def open_or_create(self) -> Store:
        """The storage; where there is none it is made, by one process at a time."""
        self.check()
        try:
            with self.creation_lock():
                return self.open(create=True)
        finally:
            self.locks.clean_up()

    def check(self) -> None:
        """Refuse a database that cannot be used, before anything is written.

        Raises:
            StorageError: what is wrong with it.
        """
        if not self.locks.in_use:  # else somebody may just be making the database
            self.database.check(create=True)

    @contextlib.contextmanager
    def creation_lock(self) -> Iterator[None]:
        """Make tables or studies in this block, as the only process that does.

        Raises:
            StorageError: no lock can be made.
        """
        try:
            with self.locks.hold(CREATION_LOCK):
                yield
        except OSError as error:
            raise StorageError(f"cannot write beside the database {self.database.shown}: {error.strerror}", hint=OTHER_PATH_HINT) from error
