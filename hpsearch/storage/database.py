"""Open a storage from a URL: an Optuna database in a SQLite file or on a PostgreSQL server, and nothing else in its place."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hpsearch.config.paths import RunPaths
from hpsearch.errors import DiskError, HpsearchError, OutageError, StorageError, StudyNotFoundError, did_you_mean
from hpsearch.formatting import show
from hpsearch.storage.optuna_internals import optuna_is_known
from hpsearch.storage.postgres import DRIVER, RESUME_HINT, PostgresServer, error_text, is_transient, origin
from hpsearch.storage.records import trim_attributes
from hpsearch.storage.retry import RetryPolicy
from hpsearch.storage.sqlite import SqliteFile
from hpsearch.storage.trial_cache import BatchingCache, PlainCache, Retry, TrimmedCache

STORAGE_VARIABLE = "OPTUNA_STORAGE"
METRIC = "val_accuracy"
KINDS = f"sqlite:///FILE or {DRIVER}://HOST/DATABASE"
DISK_FULL = "53100"
"""PostgreSQL's SQLSTATE."""

log = logging.getLogger("hpsearch")

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Store:
    """An Optuna storage that hpsearch supports, and its studies.

    Attributes:
        url: as given, with its password: never print it, print `str(store)`.
        place: the file or server.
        retry_policy: for a database that is locked or away.
    """

    def __init__(
        self, url: str, database: SqliteFile | PostgresServer, storage: PlainCache, rdb: RDBStorage, retry_policy: RetryPolicy
    ) -> None:
        self.url = url
        self.database = database
        self.storage = storage
        self.rdb = rdb
        self.retry_policy = retry_policy

    def __str__(self) -> str:
        return self.database.shown

    def study_names(self) -> list[str]:
        """The names of all studies."""
        return [study.study_name for study in self.storage.get_all_studies()]

    def load(self, name: str) -> optuna.Study:
        """The study of that name.

        Raises:
            StudyNotFoundError: there is none.
        """
        try:
            return optuna.load_study(study_name=name, storage=self.storage)
        except KeyError as error:
            known = self.study_names()
            hint = did_you_mean(name, known) if known else "`hpsearch run` with a study file makes one."
            raise StudyNotFoundError(f"no study {show(name)} in {self}", hint=hint) from error

    def create(self, name: str) -> optuna.Study:
        """A new, empty study that maximises validation accuracy; the caller holds the lock of creation."""
        study = optuna.create_study(study_name=name, storage=self.storage, direction="maximize")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([METRIC])
        return study

    def delete(self, name: str) -> None:
        """Delete a study and all its trials."""
        optuna.delete_study(study_name=name, storage=self.storage)

    @contextmanager
    def skip_if_unavailable(self, *, warning: str = "") -> Iterator[None]:
        """Do without what the block writes where the database is locked or away and this process was asked to stop.

        Args:
            warning: a warning for when it comes to that.
        """
        try:
            yield
        except (StorageInternalError, SQLAlchemyError, OutageError) as error:
            if not (isinstance(error, OutageError) or (self.retry_policy.stop_requested() and self.database.is_unavailable(origin(error)))):
                raise
            if warning:
                log.warning(warning)

    def require_database(self) -> None:
        """Refuse to go on without the database.

        Raises:
            DiskError: its file is gone.
        """
        self.database.require()

    def dispose(self) -> None:
        """Close the connections."""
        self.storage.remove_session()
        self.rdb.engine.dispose()


def storage_url(option: str | None, paths: RunPaths) -> str:
    """The URL of the storage: the option, `$OPTUNA_STORAGE`, or the SQLite file in the folder of runs."""
    return option or os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{paths.database}"


def database_at(url: str) -> SqliteFile | PostgresServer:
    """The database that a URL names, whether it is there or not.

    Raises:
        StorageError: a URL of another kind.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError(f"a storage URL must be {KINDS}, but got {show(url.split('@')[-1])}") from error
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    if parsed.drivername in ("postgresql", DRIVER):
        if not parsed.database:
            raise StorageError(
                f"a PostgreSQL storage must name a database, but got {show(shown)}", hint=f"For example {DRIVER}://HOST/hpsearch"
            )
        return PostgresServer(parsed)
    if parsed.drivername != "sqlite":
        raise StorageError(
            f"a storage URL must be {KINDS}, but got {show(shown)}",
            hint="Both have locks that die with their holder, which is how a dead worker is told from a slow one.",
        )
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(f"a SQLite storage must be a file, but got {show(shown)}", hint="For example sqlite:///runs/hpsearch.db")
    return SqliteFile(parsed)


def open_store(url: str, *, create: bool, trimmed: bool = False, retry_policy: RetryPolicy | None = None) -> Store:
    """Open a storage.

    Args:
        create: whether a database that does not exist is made, or its tables.
        lean: whether finished trials are kept in memory without what a search does not look at.
        retry_policy: this process's; one of its own by default.

    Raises:
        StorageError: a URL of another kind, a folder that cannot be written, a database that cannot be used.
        StudyNotFoundError: the database does not exist and is not to be made.
    """
    database = database_at(url)
    retry_policy = retry_policy or RetryPolicy(max_wait=database.max_wait)

    database.check(create=create)
    try:
        rdb = database.open(retry_policy)
    except RuntimeError as error:
        raise StorageError(
            f"{database.shown} holds the tables of another Optuna: {error}",
            hint="Copy the database first; then `optuna storage upgrade --storage URL` brings it up to date.",
        ) from error
    except SQLAlchemyError as error:
        raise database.unusable(error) from error
    retry: Retry = partial(database.retry, retry_policy)
    if not optuna_is_known():
        storage = PlainCache(rdb)
    else:
        storage = TrimmedCache(rdb, retry, trim_attributes) if trimmed else BatchingCache(rdb, retry)
    return Store(url, database, storage, rdb, retry_policy)


def database_failed(error: BaseException) -> HpsearchError:
    """What to say when the database could not be read or written in the middle of things."""
    cause = error_text(error)
    error = getattr(origin(error), "orig", None) or error
    if type(error).__module__.startswith("psycopg") and getattr(error, "sqlstate", None) != DISK_FULL:
        if is_transient(error):
            return OutageError(f"the database cannot be reached: {cause}", hint=RESUME_HINT)
        return StorageError(f"the database refuses: {cause}", hint="What a role must be allowed to do stands in docs/postgres.md.")
    hint = "Another program holds its lock." if "locked" in cause else "Make room where it lies."
    return DiskError(f"the database failed: {cause}", hint=f"{hint} Then the same command continues.")
