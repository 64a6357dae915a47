"""Connections to a SQLite file: they wait where another program has locked it, say so, and keep little of it in memory.

SQLite's own wait comes back to Python only at its end, and until then no signal is answered. So it
is asked to wait for a moment only, again and again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

LOCK_WAIT = 60.0
"""Seconds to wait for a database that another process has locked."""
HURRIED_WAIT = 2.0
"""The same once this process was asked to stop."""
TRY_SECONDS = 0.5
"""The longest that a signal waits for its answer."""
SAY_WAITING = 5.0
"""Seconds after which a wait is said."""
PAUSE = 0.02
"""Seconds between two tries, for the locks that SQLite does not wait for."""
CACHE_KILOBYTES = 256
"""Of the file that a connection keeps in memory; the system keeps it anyway, and SQLite's 2 MB fill up as a search goes on."""

log = logging.getLogger("hpsearch")

Result = TypeVar("Result")


class LockWait:
    """How long the connections of one storage wait.

    Attributes:
        hurried: whether this process was asked to stop.
    """

    def __init__(self) -> None:
        self.hurried: Callable[[], bool] = lambda: False

    def connect(self, database: str, **options: Any) -> sqlite3.Connection:
        """What `sqlite3.connect` takes as a factory."""
        return _Connection(self, database, **{**options, "timeout": TRY_SECONDS})

    def until_free(self, call: Callable[[], Result], database: str) -> Result:
        """Call until no lock is in the way.

        Raises:
            sqlite3.OperationalError: one still is after LOCK_WAIT or HURRIED_WAIT.
        """
        started, said = time.monotonic(), False
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - started
                if not is_locked(error) or waited > (HURRIED_WAIT if self.hurried() else LOCK_WAIT):
                    raise
                if waited > SAY_WAITING and not said:
                    said = True
                    log.warning("waiting for %s, which another program has locked; for up to %.0f seconds", database, LOCK_WAIT)
            time.sleep(PAUSE)


def is_locked(error: BaseException) -> bool:
    """Whether a statement failed because of a lock that may go away; one that read what is old by now would fail for ever."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


class _Connection(sqlite3.Connection):
    def __init__(self, wait: LockWait, database: str, **options: Any) -> None:
        super().__init__(database, **options)
        self.wait = wait
        self.database = database
        self.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def commit(self) -> None:
        self.wait.until_free(super().commit, self.database)


class _Cursor(sqlite3.Cursor):
    connection: _Connection

    def execute(self, *statement: Any) -> _Cursor:
        self.connection.wait.until_free(partial(super().execute, *statement), self.connection.database)
        return self

    def executemany(self, *statement: Any) -> _Cursor:
        self.connection.wait.until_free(partial(super().executemany, *statement), self.connection.database)
        return self
