"""A SQLite file as storage: what may serve as one, and connections that wait where another program has locked it.

SQLite's own wait comes back to Python only at its end, and until then no signal is answered. So it
is asked to wait for a moment only, again and again.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import DiskError, HpsearchError, StorageError, StudyNotFoundError
from hpsearch.formatting import show_path
from hpsearch.storage.retry import Result, RetryPolicy

LOCK_WAIT = 60.0
"""Seconds to wait for a database that another process has locked."""
TRY_SECONDS = 0.5
"""The longest that a signal waits for its answer."""
SAY_WAITING = 5.0
"""Seconds after which a wait is said."""
PAUSE = 0.02
"""Seconds between two tries, for the locks that SQLite does not wait for."""
CACHE_KILOBYTES = 256
"""Of the file that a connection keeps in memory; the system keeps it anyway, and SQLite's 2 MB fill up as a search goes on."""
OTHER_PATH_HINT = "Choose another place with --storage or --runs."

log = logging.getLogger("hpsearch")


class SqliteFile:
    """A SQLite file, whether it is there or not.

    Attributes:
        path: absolute.
        shown: the URL.
        max_wait: seconds.
    """

    max_wait = LOCK_WAIT

    def __init__(self, url: URL) -> None:
        self.url = url
        self.path = Path(str(url.database)).absolute()
        # A query may hold a password as well, which SQLAlchemy would print.
        self.shown = url.set(query={}).render_as_string(hide_password=True)

    def open(self, retry_policy: RetryPolicy) -> RDBStorage:
        """Optuna's storage in the file, which is made where there is none.

        Raises:
            StorageError: its folder cannot be made.
            SQLAlchemyError: it cannot be used.
            RuntimeError: it has the tables of another Optuna.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder of {self.shown}: {error.strerror}", hint=OTHER_PATH_HINT) from error
        rdb = RDBStorage(
            self.url.render_as_string(hide_password=False), engine_kwargs={"connect_args": {"factory": _factory(retry_policy)}}
        )
        with rdb.engine.connect() as connection:
            # Write-ahead logging: a dashboard that reads never makes a worker wait.
            connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        return rdb

    def check(self, *, create: bool) -> None:
        """Refuse a file that is not an Optuna database, before SQLAlchemy would write to it.

        Args:
            create: whether one that does not exist is to be made.

        Raises:
            StorageError, StudyNotFoundError: as `open_store`.
        """
        # Not by opening the file here: with it would be closed, for all connections that this process has, their locks on it, and a
        # process that ends meanwhile would take itself for the last one and remove the write-ahead log that they still write to.
        database = self.path
        try:
            if not database.exists():
                if not create:
                    raise StudyNotFoundError(f"there is no database {database}", hint="`hpsearch run` with a study file makes one.")
                folder = next(parent for parent in database.parents if parent.exists())
                if not folder.is_dir() or not os.access(folder, os.W_OK):
                    raise StorageError(f"{database} cannot be made: {folder} is no folder that can be written to", hint=OTHER_PATH_HINT)
                return
            is_empty = database.stat().st_size == 0
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StorageError(f"cannot use the database {show_path(database)}: {reason}") from error
        if database.is_dir():
            raise StorageError(f"the database {database} is a directory", hint=OTHER_PATH_HINT)
        if is_empty:
            raise StorageError(f"{database} is empty", hint="Move it away, or choose another file with --storage.")
        if not os.access(database, os.R_OK | os.W_OK):
            raise StorageError(f"{database} cannot be written to", hint=OTHER_PATH_HINT)
        tables = self._tables()
        if tables and "studies" not in tables:
            raise StorageError(
                f"{database} belongs to another program (tables {', '.join(sorted(tables)[:4])})", hint="Choose another with --storage."
            )

    def retry(self, retry_policy: RetryPolicy, call: Callable[[], Result]) -> Result:
        """Call: each statement waits by itself where the file is locked."""
        return call()

    def wait_for(self, retry_policy: RetryPolicy) -> None:
        """Nothing: whoever finds the file locked waits."""

    def require(self) -> None:
        """Refuse to go on without the file: SQLite itself would go on writing to a deleted one.

        Raises:
            DiskError: it is gone.
        """
        if not self.path.exists():
            raise DiskError(f"the database {self.path} is gone", hint="Put it back, or begin anew with the same command.")

    def is_unavailable(self, error: BaseException) -> bool:
        """Whether an error, in SQLAlchemy's words or SQLite's, says that another program has locked the file."""
        return is_locked(getattr(error, "orig", error))

    def unusable(self, error: SQLAlchemyError) -> HpsearchError:
        """What to say when the file cannot be used from the start."""
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return StorageError(f"cannot use {self.shown}: {cause}", hint="Is its disk full, or may this user not write to it?")

    def _tables(self) -> set[str]:
        try:
            connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT)
            try:
                return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise StorageError(
                    f"{self.path} is no SQLite database, or a damaged one", hint="Move it away, or choose another file with --storage."
                ) from error
            raise StorageError(f"{self.path} is damaged: {error}", hint="Restore it from a copy; hpsearch has not touched it.") from error


def is_locked(error: BaseException) -> bool:
    """Whether a statement failed because of a lock that may go away; one that read what is old by now would fail for ever."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


def _factory(retry_policy: RetryPolicy) -> Callable[..., sqlite3.Connection]:
    """What `sqlite3.connect` takes as a factory."""

    def connect(database: str, **options: Any) -> sqlite3.Connection:
        return _Connection(retry_policy, database, **{**options, "timeout": TRY_SECONDS})

    return connect


class _Connection(sqlite3.Connection):
    def __init__(self, retry_policy: RetryPolicy, database: str, **options: Any) -> None:
        super().__init__(database, **options)
        self.retry_policy = retry_policy
        self.database = database
        self.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def commit(self) -> None:
        self.until_free(super().commit)

    def until_free(self, call: Callable[[], Result]) -> Result:
        """Call until no lock is in the way.

        Raises:
            sqlite3.OperationalError: one still is after all patience.
        """
        said = False

        def warn_once(error: Exception, waited: float) -> None:
            nonlocal said
            if waited > SAY_WAITING and not said:
                said = True
                log.warning("waiting for %s, which another program has locked; for up to %.0f seconds", self.database, LOCK_WAIT)

        return self.retry_policy.retry(call, is_transient=is_locked, delays=itertools.repeat(PAUSE), on_error=warn_once)


class _Cursor(sqlite3.Cursor):
    connection: _Connection

    def execute(self, *statement: Any) -> _Cursor:
        self.connection.until_free(partial(super().execute, *statement))
        return self

    def executemany(self, *statement: Any) -> _Cursor:
        self.connection.until_free(partial(super().executemany, *statement))
        return self
