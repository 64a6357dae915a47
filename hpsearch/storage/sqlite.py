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
from urllib.parse import quote

import psutil
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.pool import NullPool

from hpsearch.errors import DiskError, HpsearchError, StorageError, StudyNotFoundError
from hpsearch.formatting import show_path
from hpsearch.storage.base import VERSION_TABLE, Database
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


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file, as Optuna and SQLAlchemy read it.

    Args:
        path: the file.

    Returns:
        The URL. Characters that have a meaning in a URL or for Optuna are written as `%3F`.
    """
    return "sqlite:///" + str(path).translate({ord(each): quote(each) for each in "%?{}"})


class SqliteFile(Database):
    """A SQLite file.

    Attributes:
        path: absolute path of the file.
    """

    max_wait = MAX_LOCK_WAIT

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite_url(path))
        self.path = path.absolute()

    @property
    def may_write(self) -> bool:
        """Whether this user may write to the file, and to its folder, where SQLite makes files beside it."""
        return all(os.access(each, os.W_OK) for each in (self.path, self.path.resolve().parent))

    def open(self, retry_policy: RetryPolicy, *, create: bool, read_only: bool) -> RDBStorage:
        def connect() -> sqlite3.Connection:
            return self._connect_to_read(retry_policy) if read_only else _Connection(retry_policy, self.path, "rwc" if create else "rw")

        if create:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot make the folder of {self.display_url}: {error.strerror}", hint=OTHER_PATH_HINT) from error
        options: dict[str, Any] = {"creator": connect}
        if read_only:
            # Each session has its own connection. So SQLite leaves no file beside the database while nobody reads.
            options["poolclass"] = NullPool
        # The URL is only the name of a dialect here, because `connect` makes the connections.
        rdb = RDBStorage("sqlite:///file", skip_table_creation=not create, engine_kwargs=options)
        if create:
            with rdb.engine.connect() as connection:
                # With write-ahead logging, a worker does not have to wait while the dashboard reads.
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        return rdb

    def check(self, *, create: bool, read_only: bool = False) -> None:
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
        if not read_only and any(Path(each.mountpoint) == database.resolve() for each in psutil.disk_partitions(all=True)):
            # The log and the locks lie beside each of its names, so two runs would not know of each other.
            raise StorageError(f"{database} is a file that is mounted by itself", hint="Mount its folder instead.")
        nothing_yet = StudyNotFoundError(f"there are no studies in {database} yet", hint="`hpsearch run` with a study file makes one.")
        if status.st_size == 0:
            if not create:
                raise nothing_yet  # another process may be making it now
            raise StorageError(f"{database} is empty", hint="Move it away, or choose another file with --storage.")
        if not os.access(database, os.R_OK if read_only else os.R_OK | os.W_OK):
            raise StorageError(f"{database} cannot be {'read' if read_only else 'written to'}", hint=OTHER_PATH_HINT)
        tables = [name for (name,) in self._read("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if tables and "studies" not in tables:
            raise StorageError(
                f"{database} belongs to another program (tables {', '.join(sorted(tables)[:4])})", hint="Choose another with --storage."
            )
        # Optuna makes the version last. Without it the database is half made, and whoever opened it would make the rest a second time.
        if not create and not (VERSION_TABLE in tables and self._read(f"SELECT version_num FROM {VERSION_TABLE}")):
            raise nothing_yet

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
        hint = "Is its disk full?"
        if not self.may_write:
            hint = "Copy it, with the files beside it whose names begin with its name, to a folder that this user may write to."
        return StorageError(f"cannot use {self.display_url}: {cause}", hint=hint)

    def _read(self, statement: str) -> list[tuple[str, ...]]:
        try:
            connection = self._connect_to_read(RetryPolicy(max_wait=self.max_wait))
            try:
                return list(connection.execute(statement))
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            raise self.open_error(error) from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise StorageError(
                    f"{self.path} is not a SQLite database, or a damaged one", hint="Move it away, or choose another file with --storage."
                ) from error
            raise StorageError(f"{self.path} is damaged: {error}", hint="Restore it from a copy; hpsearch has not touched it.") from error

    def _connect_to_read(self, retry_policy: RetryPolicy) -> _Connection:
        """Connect without changing anything, whether or not this user may write."""
        real = self.path.resolve()
        wal, journal = (_size(real.with_name(f"{real.name}{ending}")) for ending in ("-wal", "-journal"))
        if self.may_write:
            # SQLite makes two files beside the database while it reads, which the mode `ro` would leave there. The mode `rw` removes them
            # at the end, but would also put a log that a killed process has left into the database.
            connection = _Connection(retry_policy, self.path, "ro" if wal else "rw")
            connection.execute("PRAGMA query_only = ON")
            return connection
        has_log = wal or journal
        # In a folder where this user may make files, SQLite would make them in the user's name, and the owner could not write to them.
        if has_log or not os.access(real.parent, os.W_OK):
            try:
                return _Connection(retry_policy, self.path, "ro")
            except sqlite3.OperationalError as error:
                if has_log or error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                    raise
        # Write-ahead logging needs an index beside the file, which this user may not make. Without a log nobody writes now, so the file
        # alone is complete. With a log that SQLite cannot use, the file alone would be old, or half of a transaction.
        return _Connection(retry_policy, self.path, "ro&immutable=1")


def is_locked(error: BaseException) -> bool:
    """Return whether a statement failed because of a lock that may go away.

    Args:
        error: an error of SQLite.

    Returns:
        True if the next try may succeed. A transaction whose snapshot is too old would fail at each try, so the result is False.
    """
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


class _Connection(sqlite3.Connection):
    """A connection to a SQLite file.

    Args:
        retry_policy: decides how long a statement waits for the file.
        path: the file.
        mode: the value of `mode` in SQLite's URI of the file, and further options.
    """

    def __init__(self, retry_policy: RetryPolicy, path: Path, mode: str) -> None:
        # SQLAlchemy lends a connection to one thread at a time.
        super().__init__(f"{path.as_uri()}?mode={mode}", uri=True, timeout=TRY_SECONDS, check_same_thread=False)
        self.retry_policy = retry_policy
        self.path = path
        self.expected = _version(path) if "immutable" in mode else None
        # This reads the file, so it raises an error if the file cannot be read.
        self.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def execute(self, *statement: Any) -> Any:
        return self.cursor().execute(*statement)  # Python's own method would not use our cursor

    def commit(self) -> None:
        self.until_free(super().commit)

    def require_unchanged(self) -> None:
        """Raise an error if the file has changed although it is read without locks, because what was read may be a mixture."""
        if self.expected is not None and _version(self.path) != self.expected:
            raise sqlite3.OperationalError("it was locked and changed by another program while it was read")

    def until_free(self, call: Callable[[], Result]) -> Result:
        """Call a function until the file is not locked. Raise `sqlite3.OperationalError` after the longest wait."""

        def warning(error: Exception) -> str:
            return f"waiting for {self.path}, which another program has locked; for up to {MAX_LOCK_WAIT:.0f} seconds"

        delays = itertools.repeat(RETRY_DELAY)
        return self.retry_policy.retry(call, is_transient=is_locked, delays=delays, warning=warning, warn_after=WARN_AFTER)


class _Cursor(sqlite3.Cursor):
    connection: _Connection

    def execute(self, *statement: Any) -> _Cursor:
        self.connection.require_unchanged()
        self.connection.until_free(partial(super().execute, *statement))
        return self

    def executemany(self, *statement: Any) -> _Cursor:
        self.connection.until_free(partial(super().executemany, *statement))
        return self


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _version(path: Path) -> tuple[int, int, int]:
    """Return numbers that differ after the file was written."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
