"""The locks of a PostgreSQL database: session-level advisory locks, which the server ends with their connection.

All locks of a process are held on one connection. When the connection is lost, the locks are lost too, and another process
may take them before this one reconnects. So a holder checks its lock before it writes.
"""

from __future__ import annotations

import threading
from typing import Any

from hpsearch.errors import LeaseLostError
from hpsearch.storage.locks import Locks
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.retry import RetryPolicy

LOCK_TIMEOUT = "5s"
"""The longest single wait for a lock. Waits are repeated, so that a silent server is told from a lock that is held."""
KEY = "hashtextextended(current_schema() || '/hpsearch/' || %s, 0)"
"""A lock is a number of 64 bits in its database. The schema is part of it, since each schema may have a study 1."""


class AdvisoryLease:
    """A held advisory lock."""

    def __init__(self, locks: AdvisoryLocks, name: str, session: _Session) -> None:
        self._locks, self._name, self._session = locks, name, session

    @property
    def is_held(self) -> bool:
        """Whether the connection that holds the lock still works."""
        return self._session.answers()

    def release(self) -> None:
        """Release the lock; one that was lost with its connection needs no release."""
        self._locks.release(self._name, self._session)


class AdvisoryLocks(Locks):
    """The locks of one database on a server, for one process."""

    def __init__(self, server: PostgresServer, retry_policy: RetryPolicy) -> None:
        self._server = server
        self._retry_policy = retry_policy
        self._mutex = threading.RLock()
        self._session: _Session | None = None

    def acquire(self, name: str) -> AdvisoryLease | None:
        return self._take(name, f"SELECT pg_try_advisory_lock({KEY})")

    def _wait(self, name: str) -> AdvisoryLease | None:
        return self._take(name, f"SELECT true FROM pg_advisory_lock({KEY})")

    def require_held(self) -> None:
        with self._mutex:
            if self._session is not None and self._session.held and not self._session.answers():
                raise self._lost()

    def release(self, name: str, session: _Session) -> None:
        """Release a lock.

        Args:
            name: of the lock.
            session: the connection that took it.
        """
        with self._mutex:
            session.held.discard(name)
            session.run(f"SELECT pg_advisory_unlock({KEY})", name)

    def clean_up(self) -> None:
        """Do nothing: the server keeps no trace of a lock."""

    def _take(self, name: str, statement: str) -> AdvisoryLease | None:
        def take() -> AdvisoryLease | None:
            session = self._connected_session()
            # The server would give a session the same lock twice.
            if name in session.held or not session.ask(statement, name):
                return None
            session.held.add(name)
            return AdvisoryLease(self, name, session)

        with self._mutex:
            return self._server.retry(self._retry_policy, take)

    def _connected_session(self) -> _Session:
        if self._session is not None and self._session.is_closed and self._session.held:
            raise self._lost()
        if self._session is None or self._session.is_closed:
            self._session = _Session(self._server)
        return self._session

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(
            f"the connection to {self._server.display_url} was lost, and this process's locks with it", hint="The same command continues."
        )


class _Session:
    """A connection, and the names of the locks that it holds."""

    def __init__(self, server: PostgresServer) -> None:
        self._connection = server.connect(autocommit=True)
        self._connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        self.held: set[str] = set()

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    def answers(self) -> bool:
        """Ask the server whether the connection still works."""
        return self.run("SELECT 1")

    def run(self, statement: str, *parameters: Any) -> bool:
        """Execute a statement; returns whether that worked, and closes the connection if not."""
        import psycopg

        try:
            self._connection.execute(statement, parameters or None)
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def ask(self, statement: str, *parameters: Any) -> bool:
        """Execute a statement that returns true or false; a wait for a lock that took too long returns false."""
        import psycopg

        try:
            row = self._connection.execute(statement, parameters).fetchone()
        except psycopg.errors.LockNotAvailable:
            return False
        return bool(row and row[0])
