"""A SQLite file as storage. This module checks the file. Its connections wait while another program has locked the file.

While SQLite waits for a lock, Python cannot handle signals. So one wait inside SQLite is short, and the wait is repeated.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL

from hpsearch.errors import DiskError, HpsearchError, StorageError, StudyNotFoundError
from hpsearch.formatting import show_path
from hpsearch.storage.base import Database
from hpsearch.storage.retry import Result, RetryPolicy

MAX_LOCK_WAIT = 60.0
"""Seconds to wait for a database that another process has locked."""
TRY_SECONDS = 0.5
"""Seconds of one wait inside SQLite. A signal may be handled this much later."""
WARN_AFTER = 5.0
"""Seconds of waiting before a warning."""
RETRY_DELAY = 0.02
"""Seconds between two tries, for locks that SQLite itself does not wait for."""
CACHE_KILOBYTES = 256
"""Memory that a connection uses for pages of the file.

By default SQLite uses 2 MB, which would fill up in a long search. Less is enough, because the operating system caches the file too.
"""
OTHER_PATH_HINT = "Choose another place with --storage or --runs."


class SqliteFile(Database):
    """A SQLite file.

    Attributes:
        path: absolute path of the file.
    """

    max_wait = MAX_LOCK_WAIT

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self.path = Path(str(url.database)).absolute()

    def open(self, retry_policy: RetryPolicy) -> RDBStorage:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder of {self.display_url}: {error.strerror}", hint=OTHER_PATH_HINT) from error
        rdb = RDBStorage(
            self.url.render_as_string(hide_password=False), engine_kwargs={"connect_args": {"factory": _factory(retry_policy)}}
        )
        with rdb.engine.connect() as connection:
            # With write-ahead logging, a worker does not have to wait while the dashboard reads.
            connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        return rdb

    def check(self, *, create: bool) -> None:
        # Python must not open the file itself, because closing the file would drop all locks that this process holds on it. Another
        # process that ends at that moment would then believe that it is the last user, and would remove the write-ahead log.
        database = self.path
        try:
            if not database.exists():
                if not create:
                    raise StudyNotFoundError(f"there is no database {database}", hint="`hpsearch run` with a study file makes one.")
                folder = next(parent for parent in database.parents if parent.exists())
                if not folder.is_dir() or not os.access(folder, os.W_OK):
                    raise StorageError(f"{database} cannot be made: {folder} is not a writable folder", hint=OTHER_PATH_HINT)
                return
            status = database.stat()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StorageError(f"cannot use the database {show_path(database)}: {reason}") from error
        if database.is_dir():
            raise StorageError(f"the database {database} is a directory", hint=OTHER_PATH_HINT)
        if status.st_nlink > 1 and database.is_file():
            # SQLite keeps the write-ahead log beside the name. Two runs with different names would damage the database.
            raise StorageError(f"{database} has {status.st_nlink} names (hard links)", hint="Make a copy with one name, and use the copy.")
        if status.st_size == 0:
            raise StorageError(f"{database} is empty", hint="Move it away, or choose another file with --storage.")
        if not os.access(database, os.R_OK | os.W_OK):
            raise StorageError(f"{database} cannot be written to", hint=OTHER_PATH_HINT)
        tables = self._tables()
        if tables and "studies" not in tables:
            raise StorageError(
                f"{database} belongs to another program (tables {', '.join(sorted(tables)[:4])})", hint="Choose another with --storage."
            )

    def retry(self, retry_policy: RetryPolicy, call: Callable[[], Result]) -> Result:
        """Call a function one time. It needs no retry, because each statement waits while the file is locked."""
        return call()

    def wait_for(self, retry_policy: RetryPolicy) -> None:
        """Do nothing, because each statement waits while the file is locked."""

    def require_exists(self) -> None:
        """Raise an error if the file is gone. SQLite itself would keep writing to a deleted file."""
        if not self.path.exists():
            raise DiskError(f"the database {self.path} is gone", hint="Put it back, or begin anew with the same command.")

    def is_unavailable(self, error: BaseException) -> bool:
        return is_locked(getattr(error, "orig", error))

    def open_error(self, error: BaseException) -> HpsearchError:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return StorageError(f"cannot use {self.display_url}: {cause}", hint="Is its disk full, or may this user not write to it?")

    def _tables(self) -> set[str]:
        try:
            connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=MAX_LOCK_WAIT)
            try:
                return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise StorageError(
                    f"{self.path} is not a SQLite database, or a damaged one", hint="Move it away, or choose another file with --storage."
                ) from error
            raise StorageError(f"{self.path} is damaged: {error}", hint="Restore it from a copy; hpsearch has not touched it.") from error


def is_locked(error: BaseException) -> bool:
    """Return whether a statement failed because of a lock that may go away.

    Args:
        error: an error of SQLite.

    Returns:
        True if the next try may succeed. A transaction whose snapshot is too old would fail at each try, so the result is False.
    """
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


def _factory(retry_policy: RetryPolicy) -> Callable[..., sqlite3.Connection]:
    """Return the `factory` for `sqlite3.connect`."""

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
        """Call a function until the file is not locked. Raise `sqlite3.OperationalError` after the longest wait."""

        def warning(error: Exception) -> str:
            return f"waiting for {self.database}, which another program has locked; for up to {MAX_LOCK_WAIT:.0f} seconds"

        delays = itertools.repeat(RETRY_DELAY)
        return self.retry_policy.retry(call, is_transient=is_locked, delays=delays, warning=warning, warn_after=WARN_AFTER)


class _Cursor(sqlite3.Cursor):
    connection: _Connection

    def execute(self, *statement: Any) -> _Cursor:
        self.connection.until_free(partial(super().execute, *statement))
        return self

    def executemany(self, *statement: Any) -> _Cursor:
        self.connection.until_free(partial(super().executemany, *statement))
        return self
