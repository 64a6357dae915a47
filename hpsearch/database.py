"""Open a storage from a URL: an Optuna database in a SQLite file, and nothing else in its place."""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hpsearch.components import show, show_path
from hpsearch.errors import DiskError, StorageError, StudyNotFoundError, did_you_mean
from hpsearch.paths import RunPaths
from hpsearch.sqlite_connection import LOCK_WAIT, LockWait, is_locked
from hpsearch.trial_cache import LeanCache

STORAGE_VARIABLE = "OPTUNA_STORAGE"
METRIC = "val_accuracy"
OTHER_PLACE = "Choose another place with --storage or --runs."

log = logging.getLogger("hpsearch")

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Store:
    """An Optuna storage that hpsearch supports, and its studies.

    Attributes:
        url: as given, with its password: never print it, print `str(store)`.
        wait: for a database that another program has locked.
    """

    def __init__(self, url: str, parsed: URL, storage: optuna.storages.BaseStorage, rdb: RDBStorage, wait: LockWait) -> None:
        self.url = url
        self.parsed = parsed
        self.storage = storage
        self.rdb = rdb
        self.wait = wait

    def __str__(self) -> str:
        return _without_secrets(self.parsed)

    @property
    def database(self) -> Path:
        """The file of a SQLite database, absolute."""
        return Path(str(self.parsed.database)).absolute()

    def names(self) -> list[str]:
        """The names of all studies."""
        return [study.study_name for study in self.storage.get_all_studies()]

    def load(self, name: str, *, sampler: Any = None, pruner: Any = None) -> optuna.Study:
        """The study of that name.

        Raises:
            StudyNotFoundError: there is none.
        """
        try:
            return optuna.load_study(study_name=name, storage=self.storage, sampler=sampler, pruner=pruner)
        except KeyError as error:
            known = self.names()
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

    def changed_trials(self, study_id: int, *, unfinished: Collection[int], last_finished: int) -> list[FrozenTrial]:
        """The trials of a study that may have changed, read past Optuna's cache.

        Args:
            unfinished: ids of those that were not over when they were last read.
            last_finished: the highest id of those that were; -1 for none. All trials beyond it are read too.

        Raises:
            KeyError: the study is no more.
        """
        return self.rdb._get_trials(study_id, None, set(unfinished), last_finished)

    def running_trials(self, study_id: int) -> list[FrozenTrial]:
        """The trials of a study that are running, read past Optuna's cache, which would read all others too.

        Raises:
            KeyError: the study is no more.
        """
        return self.rdb.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))

    @contextmanager
    def unless_locked(self, *, say: str = "") -> Iterator[None]:
        """Do without what the block writes where another program has locked the database and this process was asked to stop.

        Args:
            say: a warning for when it comes to that.
        """
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            if not (self.wait.hurried() and is_locked(getattr(_origin(error), "orig", error))):
                raise
            if say:
                log.warning(say)

    def require_database(self) -> None:
        """Refuse to go on without the file: SQLite itself would go on writing to a deleted one.

        Raises:
            DiskError: it is gone.
        """
        if not self.database.exists():
            raise DiskError(f"the database {self.database} is gone", hint="Put it back, or begin anew with the same command.")

    def dispose(self) -> None:
        """Close the connections."""
        self.storage.remove_session()
        self.rdb.engine.dispose()


def storage_url(option: str | None, paths: RunPaths) -> str:
    """The URL of the storage: the option, `$OPTUNA_STORAGE`, or the SQLite file in the folder of runs."""
    return option or os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{paths.database}"


def database_of(url: str) -> Path:
    """The file of a SQLite storage, absolute.

    Raises:
        StorageError: a URL of another kind.
    """
    return Path(str(_parse(url).database)).absolute()


def open_store(url: str, *, create: bool, lean: bool = False) -> Store:
    """Open a storage.

    Args:
        create: whether a database that does not exist is made.
        lean: whether finished trials are kept in memory without what a search does not look at.

    Raises:
        StorageError: a URL of another kind, a folder that cannot be written, a file that is no such database.
        StudyNotFoundError: the database does not exist and is not to be made.
    """
    parsed = _parse(url)
    check_database(url, create=create)
    shown = _without_secrets(parsed)
    try:
        database_of(url).parent.mkdir(parents=True, exist_ok=True)
        wait = LockWait()
        rdb = RDBStorage(url, engine_kwargs={"connect_args": {"factory": wait.connect}})
        _let_readers_in(rdb)
    except RuntimeError as error:
        raise StorageError(
            f"{shown} holds the tables of another Optuna: {error}",
            hint="Copy the database first; then `optuna storage upgrade --storage URL` brings it up to date.",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot make the folder of {shown}: {error.strerror}", hint=OTHER_PLACE) from error
    except SQLAlchemyError as error:
        raise StorageError(f"cannot use {shown}: {_cause(error)}", hint="Is its disk full, or may this user not write to it?") from error
    # get_storage wraps the database in Optuna's own cache, of whole trials.
    return Store(url, parsed, LeanCache(rdb) if lean else get_storage(rdb), rdb, wait)


def database_failed(error: BaseException) -> DiskError:
    """What to say when the database could not be read or written in the middle of things."""
    origin = _origin(error)
    cause = _cause(origin) if isinstance(origin, SQLAlchemyError) else str(origin)
    hint = "Another program holds its lock." if "locked" in cause else "Make room where it lies."
    return DiskError(f"the database failed: {cause}", hint=f"{hint} Then the same command continues.")


def _origin(error: BaseException) -> BaseException:
    """What SQLAlchemy said, below Optuna's own words."""
    while not isinstance(error, SQLAlchemyError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _parse(url: str) -> URL:
    kind = "sqlite:///FILE"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError(f"a storage URL must be {kind}, but got {show(url.split('@')[-1])}") from error
    shown = _without_secrets(parsed)
    if parsed.drivername.startswith("postgresql"):
        raise StorageError(f"PostgreSQL is not yet supported, but the storage is {show(shown)}", hint=f"Use {kind}.")
    if parsed.drivername != "sqlite":
        raise StorageError(
            f"a storage URL must be {kind}, but got {show(shown)}",
            hint="Beside it lie locks that die with their holder, which is how a dead worker is told from a slow one.",
        )
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(f"a SQLite storage must be a file, but got {show(shown)}", hint="For example sqlite:///runs/hpsearch.db")
    return parsed


def check_database(url: str, *, create: bool) -> None:
    """Refuse a file that is not an Optuna database, before SQLAlchemy would write to it.

    Raises:
        StorageError, StudyNotFoundError: as `open_store`.
    """
    # Not by opening the file here: with it would be closed, for all connections that this process has, their locks on it, and a
    # process that ends meanwhile would take itself for the last one and remove the write-ahead log that they still write to.
    database = database_of(url)
    try:
        if not database.exists():
            if not create:
                raise StudyNotFoundError(f"there is no database {database}", hint="`hpsearch run` with a study file makes one.")
            folder = next(parent for parent in database.parents if parent.exists())
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                raise StorageError(f"{database} cannot be made: {folder} is no folder that can be written to", hint=OTHER_PLACE)
            return
        is_empty = database.stat().st_size == 0
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StorageError(f"cannot use the database {show_path(database)}: {reason}") from error
    if database.is_dir():
        raise StorageError(f"the database {database} is a directory", hint=OTHER_PLACE)
    if is_empty:
        raise StorageError(f"{database} is empty", hint="Move it away, or choose another file with --storage.")
    if not os.access(database, os.R_OK | os.W_OK):
        raise StorageError(f"{database} cannot be written to", hint=OTHER_PLACE)
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise StorageError(
                f"{database} is no SQLite database, or a damaged one", hint="Move it away, or choose another file with --storage."
            ) from error
        raise StorageError(f"{database} is damaged: {error}", hint="Restore it from a copy; hpsearch has not touched it.") from error
    if tables and "studies" not in tables:
        raise StorageError(
            f"{database} belongs to another program (tables {', '.join(sorted(tables)[:4])})", hint="Choose another with --storage."
        )


def _let_readers_in(rdb: RDBStorage) -> None:
    """Write-ahead logging: a dashboard that reads never makes a worker wait."""
    with rdb.engine.connect() as connection:
        connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))


def _without_secrets(parsed: URL) -> str:
    # A query may hold a password as well, which SQLAlchemy would print.
    return parsed.set(query={}).render_as_string(hide_password=True)


def _cause(error: SQLAlchemyError) -> str:
    origin = getattr(error, "orig", None)
    return str(origin or error).strip().splitlines()[0]
