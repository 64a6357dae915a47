"""The places where a study is stored: its database with the locks, its folder of runs and its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import optuna

from hpsearch.config.paths import DEFAULT_RUNS, RunPaths, lock_folder
from hpsearch.errors import StorageError, StudyNotFoundError
from hpsearch.storage.advisory_locks import AdvisoryLocks
from hpsearch.storage.database import Store, database_at, open_store, storage_url
from hpsearch.storage.locks import CREATION_LOCK, FileLocks, Locks
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.records import ensure_identity, read_identity
from hpsearch.storage.retry import RetryPolicy
from hpsearch.storage.sqlite import OTHER_PATH_HINT, SqliteFile


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The places where a study is stored: its database, its folder of runs and its data.

    Attributes:
        storage: URL of the database; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        runs: the folder of runs.
        data: the folder of the data set; by default hpsearch searches for the folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        wait_for_server: whether `open` waits for a server that is down. A worker that starts in the middle of a run waits.
        component_folder: the folder of the component files; by default the folder of the study file.
    """

    storage: str | None = field(default=None, repr=False)
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
        """The URL of the storage, with the password if there is one."""
        return storage_url(self.storage, self.paths)

    @cached_property
    def database(self) -> SqliteFile | PostgresServer:
        """The database of the URL."""
        return database_at(self.url)

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        """Decides how long this process waits for the database."""
        return RetryPolicy(max_wait=self.database.max_wait)

    @cached_property
    def locks(self) -> Locks:
        """The locks of the database."""
        if isinstance(self.database, PostgresServer):
            return AdvisoryLocks(self.database, self.retry_policy)
        # A link to the database is another name of the same database, with the same locks.
        return FileLocks(lock_folder(self.database.path.resolve()))

    def open(self, *, create: bool = False, read_only: bool = False, trimmed: bool = False) -> Store:
        """Open the storage.

        Args:
            create: whether to make the database, or its tables, if they do not exist.
            read_only: whether nothing will be written. Then this user needs no right to write, and not even SQLite changes the file.
            trimmed: whether to keep in memory only the parts of finished trials that a search needs.

        Returns:
            The store.

        Raises:
            StorageError: the database cannot be used.
            StudyNotFoundError: the database does not exist, and `create` is false.
            OutageError: the server did not come up in time.
        """
        if self.wait_for_server:
            self.database.wait_for(self.retry_policy)
        store = open_store(self.url, create=create, read_only=read_only, trimmed=trimmed, retry_policy=self.retry_policy)
        # After an outage, check that this process still holds its locks before a call is repeated. If the locks are lost, another
        # worker may already do the same work.
        self.retry_policy.before_retry = self.locks.require_held
        return store

    def open_or_create(self) -> Store:
        """Open the storage, or make it if it does not exist. Only one process at a time can do this.

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
        """Check that the database can be used, before anything is written.

        Raises:
            StorageError: the database cannot be used.
        """
        if not self.locks.in_use:  # otherwise another process may be making the database
            self.database.check(create=True)

    @contextlib.contextmanager
    def creation_lock(self) -> Iterator[None]:
        """Hold the creation lock in a block, so that only this process makes tables or studies.

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

    def identity_of(self, study: optuna.Study) -> str:
        """Return the identity of a study. If the study has none, give it one.

        Args:
            study: a study that hpsearch made.

        Returns:
            The identity.

        Raises:
            StorageError: the creation lock cannot be made.
            StudyNotFoundError: the study was deleted.
        """
        try:
            if identity := read_identity(study):
                return identity
            with self.creation_lock():
                return ensure_identity(study)
        except KeyError as error:
            raise StudyNotFoundError(f"no study '{study.study_name}' in {self.database.display_url}") from error
