"""The locks of a PostgreSQL database: session-level advisory locks, which the server ends with their connection.

All locks of a process hang on one connection of their own. Where that is lost, so are they, and
somebody else may have taken them before it is back: who holds one asks before it writes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hpsearch.errors import LeaseLostError
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.retry import RetryPolicy

LOCK_TIMEOUT = "5s"
"""A wait for a lock is made of waits of this length, so that a server which says nothing is told from a lock that is held."""
KEY = "hashtextextended(current_schema() || '/hpsearch/' || %s, 0)"
"""A lock is a number of 64 bits, the database's own; two schemas of one database may each have a study 1."""


class AdvisoryLease:
    """An advisory lock that is held."""

    def __init__(self, locks: AdvisoryLocks, name: str, session: _Session) -> None:
        self._locks, self._name, self._session = locks, name, session

    @property
    def is_held(self) -> bool:
        """Whether the connection that holds it still stands."""
        return self._session.answers()

    def release(self) -> None:
        """Let go of the lock; one that was lost with its connection is gone already."""
        self._locks.release(self._name, self._session)


class AdvisoryLocks:
    """The locks of one database on a server, for one process."""

    in_use = False

    def __init__(self, server: PostgresServer, retry_policy: RetryPolicy) -> None:
        self._server = server
        self._retry_policy = retry_policy
        self._mutex = threading.RLock()
        self._open: _Session | None = None

    def acquire(self, name: str) -> AdvisoryLease | None:
        """The lock of that name, or None when somebody holds it.

        Raises:
            OutageError: the server is away and stays so.
        """
        return self._take(name, f"SELECT pg_try_advisory_lock({KEY})")

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait for the lock of that name, and hold it for the length of a block.

        Raises:
            OutageError: the server is away and stays so.
        """
        while (lease := self._take(name, f"SELECT true FROM pg_advisory_lock({KEY})")) is None:
            pass
        try:
            yield
        finally:
            lease.release()

    def require_held(self) -> None:
        """Refuse to go on where locks were lost with their connection.

        Raises:
            LeaseLostError: as it says.
        """
        with self._mutex:
            if self._open is not None and self._open.held and not self._open.answers():
                raise self._lost()

    def release(self, name: str, session: _Session) -> None:
        """Let go of a lock that was taken in a session."""
        with self._mutex:
            session.held.discard(name)
            session.run(f"SELECT pg_advisory_unlock({KEY})", name)

    def clean_up(self) -> None:
        """Nothing: the server keeps no trace of a lock."""

    def _take(self, name: str, statement: str) -> AdvisoryLease | None:
        with self._mutex:

            def take() -> AdvisoryLease | None:
                session = self._session()
                # To the server a second lock of the same session is none.
                if name in session.held or not session.ask(statement, name):
                    return None
                session.held.add(name)
                return AdvisoryLease(self, name, session)

            return self._server.retry(self._retry_policy, take)

    def _session(self) -> _Session:
        if self._open is not None and self._open.is_over:
            if self._open.held:
                raise self._lost()
            self._open = None
        if self._open is None:
            self._open = _Session(self._server)
        return self._open

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(
            f"the connection to {self._server.shown} was lost, and this process's locks with it", hint="The same command continues."
        )


class _Session:
    """A connection, and the names of the locks that were taken in it."""

    def __init__(self, server: PostgresServer) -> None:
        self._connection = server.connect(autocommit=True)
        self._connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        self.held: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether the connection is known to be lost."""
        return self._connection.closed

    def answers(self) -> bool:
        """Whether the connection stands: asks the server."""
        return self.run("SELECT 1")

    def run(self, statement: str, *parameters: Any) -> bool:
        """Execute a statement; whether that could be done."""
        import psycopg

        try:
            self._connection.execute(statement, parameters or None)
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def ask(self, statement: str, *parameters: Any) -> bool:
        """Execute a statement that answers yes or no; no as well where it waited for a lock in vain."""
        import psycopg

        try:
            row = self._connection.execute(statement, parameters).fetchone()
        except psycopg.errors.LockNotAvailable:
            return False
        return bool(row and row[0])
