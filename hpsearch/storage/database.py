"""Open the database that a URL names. It can be a SQLite file or a database on a PostgreSQL server."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.config.paths import RunPaths
from hpsearch.errors import DiskError, HpsearchError, OutageError, StorageError, StudyNotFoundError, did_you_mean
from hpsearch.formatting import show
from hpsearch.storage.optuna_internals import optuna_is_known
from hpsearch.storage.postgres import DRIVER, RESUME_HINT, PostgresServer, error_text, is_transient, origin
from hpsearch.storage.records import trim_attributes
from hpsearch.storage.retry import RetryPolicy
from hpsearch.storage.sqlite import SqliteFile, sqlite_url
from hpsearch.storage.trial_cache import BatchingCache, PlainCache, Retry, TrimmedCache

STORAGE_VARIABLE = "OPTUNA_STORAGE"
METRIC = "val_accuracy"
SUPPORTED_URLS = f"sqlite:///FILE or {DRIVER}://HOST/DATABASE"
POSTGRES_URL = re.compile(
    r"\w+(?:\+\w+)?://(?:[^@?:/]*(?::[^@?]*)?@)?(?:\[[^\]@?/]*\]|[^@?=:/\[\]]*)(?::\d{0,5})?(?:/[^@?=]*)?(?:\?[^@]*)?"
)
"""A URL in which the only unquoted `@` is the end of user and password.

SQLAlchemy reads other texts too. It then takes a part of the password for the host, the port or the database, which are printed.
"""
UNREADABLE_HINT = "The text is not shown, because it may hold a password. In a user or password, write %40 for @, %2F for / and %3F for ?."
DISK_FULL = "53100"
"""The SQLSTATE (error code) with which PostgreSQL reports a full disk."""

log = logging.getLogger("hpsearch")

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True, eq=False)
class Store:
    """An open database and its studies.

    Attributes:
        url: the URL as given, with its password. Never print the URL; print `str(store)` instead.
        database: the file or server.
        storage: the cache through which Optuna's studies read and write.
        rdb: Optuna's storage below the cache.
        retry_policy: decides how long this process waits for a database that is locked or down.
    """

    url: str = field(repr=False)
    database: SqliteFile | PostgresServer
    storage: PlainCache
    rdb: RDBStorage
    retry_policy: RetryPolicy

    def __str__(self) -> str:
        return self.database.display_url

    def study_names(self) -> list[str]:
        """Return the names of all studies.

        Returns:
            The names.
        """
        return self.storage.read_study_names()

    def load(self, name: str) -> optuna.Study:
        """Load a study.

        Args:
            name: name of the study.

        Returns:
            The study, with Optuna's default sampler and pruner.

        Raises:
            StudyNotFoundError: there is no study of that name.
        """
        try:
            return optuna.load_study(study_name=name, storage=self.storage)
        except KeyError as error:
            known = self.study_names()
            hint = did_you_mean(name, known) if known else "`hpsearch run` with a study file makes one."
            raise StudyNotFoundError(f"no study {show(name)} in {self}", hint=hint) from error

    def create(self, name: str) -> optuna.Study:
        """Make an empty study that maximizes validation accuracy. The caller must hold the creation lock.

        Args:
            name: name of the study.

        Returns:
            The study.
        """
        study = optuna.create_study(study_name=name, storage=self.storage, direction="maximize")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([METRIC])
        return study

    def delete(self, name: str) -> None:
        """Delete a study with all its trials.

        Args:
            name: name of the study.
        """
        optuna.delete_study(study_name=name, storage=self.storage)

    @contextmanager
    def skip_if_unavailable(self, *, warning: str = "") -> Iterator[None]:
        """Skip the rest of a block if the database server stays down.

        After this process was asked to stop, also skip the rest if the database is locked or down for the moment.

        Args:
            warning: a text to log if the rest of the block is skipped; empty for no log.

        Yields:
            Nothing.
        """
        try:
            yield
        except (StorageInternalError, SQLAlchemyError, OutageError) as error:
            stopped = self.retry_policy.stop_requested()
            if not (isinstance(error, OutageError) or (stopped and self.database.is_unavailable(origin(error)))):
                raise
            if warning:
                log.warning(warning)

    def dispose(self) -> None:
        """Close the connections."""
        self.storage.remove_session()
        self.rdb.engine.dispose()


def storage_url(option: str | None, paths: RunPaths) -> str:
    """Choose the URL of the storage.

    Args:
        option: the URL that the user gave; None if the user gave no URL.
        paths: the folder of runs.

    Returns:
        The URL of the user. Without it `$OPTUNA_STORAGE`, or else the URL of a SQLite file in the folder of runs.
    """
    return option or os.environ.get(STORAGE_VARIABLE) or sqlite_url(paths.database)


def database_at(url: str) -> SqliteFile | PostgresServer:
    """Parse a storage URL. This does not check whether the database exists.

    Args:
        url: URL of a SQLite file or a PostgreSQL database.

    Returns:
        The database.

    Raises:
        StorageError: the URL is of another kind, or incomplete.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator:
        name, has_query, _ = rest.partition("?")
        file = unquote(name[1:]) if name.startswith("/") else ""
        if file in ("", ":memory:"):
            raise StorageError("a SQLite storage must be a file, but this URL names none", hint="For example sqlite:///runs/hpsearch.db")
        if has_query:
            raise StorageError(
                "a SQLite storage must be a file alone, but this URL has a question mark",
                hint="Leave out options such as uri=true, and write sqlite:///FILE. In the name of the file, write %3F for ?.",
            )
        return SqliteFile(Path(file))
    if scheme not in ("postgresql", DRIVER) or not separator:
        if not separator or not re.fullmatch(r"[\w+]+", scheme):
            raise StorageError(f"a storage URL must be {SUPPORTED_URLS}, but got another text", hint=UNREADABLE_HINT)
        raise StorageError(
            f"a storage URL must be {SUPPORTED_URLS}, but got a URL of {show(scheme)}",
            hint="Only the locks of these databases end with their process. hpsearch needs this to tell a dead worker from a slow one.",
        )
    if not POSTGRES_URL.fullmatch(url):
        raise StorageError(f"the storage URL cannot be read; it must be {DRIVER}://HOST:PORT/DATABASE", hint=UNREADABLE_HINT)
    parsed = make_url(url)
    if not parsed.database:
        raise StorageError("a PostgreSQL storage must name a database", hint=f"For example {DRIVER}://HOST/hpsearch")
    return PostgresServer(parsed)


def open_store(url: str, *, create: bool, read_only: bool = False, trimmed: bool = False, retry_policy: RetryPolicy | None = None) -> Store:
    """Open a storage.

    Args:
        url: URL of a SQLite file or a PostgreSQL database.
        create: whether to make the database, or its tables, if they do not exist.
        read_only: whether nothing will be written. Then this user needs no right to write, and not even SQLite changes the file.
        trimmed: whether to keep in memory only the parts of finished trials that a search needs.
        retry_policy: the retry policy of this process; a new policy by default.

    Returns:
        The store.

    Raises:
        StorageError: the URL is of another kind, a folder cannot be written, or the database cannot be used.
        StudyNotFoundError: the database does not exist, and `create` is false.
    """
    database = database_at(url)
    retry_policy = retry_policy or RetryPolicy(max_wait=database.max_wait)
    database.check(create=create, read_only=read_only)
    try:
        rdb = database.open(retry_policy, create=create, read_only=read_only)
    except RuntimeError as error:
        raise StorageError(
            f"{database.display_url} holds the tables of another Optuna: {error}",
            hint="Copy the database first; then `optuna storage upgrade --storage URL` brings it up to date.",
        ) from error
    except SQLAlchemyError as error:
        raise database.open_error(error) from error
    retry: Retry = partial(database.retry, retry_policy)
    storage: PlainCache
    if not optuna_is_known():
        storage = PlainCache(rdb)
    else:
        storage = TrimmedCache(rdb, retry, trim_attributes) if trimmed else BatchingCache(rdb, retry)
    return Store(url=url, database=database, storage=storage, rdb=rdb, retry_policy=retry_policy)


def database_error(error: BaseException) -> HpsearchError:
    """Describe why the database could not be read or written in the middle of a command.

    Args:
        error: an error of Optuna, SQLAlchemy or a database driver.

    Returns:
        An error with a message and a hint for the user.
    """
    cause = error_text(error)
    error = getattr(origin(error), "orig", None) or error
    if type(error).__module__.startswith("psycopg") and getattr(error, "sqlstate", None) != DISK_FULL:
        if is_transient(error):
            return OutageError(f"the database cannot be reached: {cause}", hint=RESUME_HINT)
        return StorageError(f"the database refuses: {cause}", hint="docs/postgres.md lists the rights that each role needs.")
    hint = "Another program holds its lock." if "locked" in cause else "Free space on its disk."
    return DiskError(f"the database failed: {cause}", hint=f"{hint} Then the same command continues.")
