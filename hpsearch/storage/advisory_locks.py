"""The locks of a PostgreSQL database. The server releases these advisory locks when their connection ends.

All locks of a process are held on one connection. If the connection is lost, the locks are lost too. Another process may then
take the locks before this process reconnects. So a process must check that it still holds a lock before it writes.
"""

from __future__ import annotations

import threading
from typing import Any

from hpsearch.errors import LeaseLostError
from hpsearch.storage.locks import Locks
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.retry import RetryPolicy

LOCK_TIMEOUT = "5s"
"""Longest wait for a lock in one statement. The statement is then repeated. So hpsearch notices a server that does not answer."""
KEY = "hashtextextended(current_schema() || '/hpsearch/' || %s, 0)"
"""SQL expression for the number of 64 bits that names a lock. It contains the schema, because each schema may have a study 1."""


class AdvisoryLease:
    """A held advisory lock."""

    def __init__(self, locks: AdvisoryLocks, name: str, session: _Session) -> None:
        self._locks, self._name, self._session = locks, name, session

    @property
    def is_held(self) -> bool:
        """Whether the connection that holds the lock still works."""
        return self._session.answers()

    def release(self) -> None:
        """Release the lock. If the connection is lost, the server has already released the lock."""
        self._locks.release(self._name, self._session)


class AdvisoryLocks(Locks):
    """The locks of one database on a server, as one process takes and holds them."""

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
            name: name of the lock.
            session: the connection that took the lock.
        """
        with self._mutex:
            session.held.discard(name)
            session.run(f"SELECT pg_advisory_unlock({KEY})", name)

    def clean_up(self) -> None:
        """Do nothing, because the server keeps no trace of a released lock."""

    def _take(self, name: str, statement: str) -> AdvisoryLease | None:
        def take() -> AdvisoryLease | None:
            session = self._connected_session()
            # Check `held` first, because the server would give the same lock to a session a second time.
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
        """Execute a statement and return whether it succeeded. Close the connection if the statement failed."""
        import psycopg

        try:
            self._connection.execute(statement, parameters or None)
        except psycopg.Error:
            self._connection.close()
            return False
        return True

    def ask(self, statement: str, *parameters: Any) -> bool:
        """Execute a statement that returns true or false. Return false also if a lock was not free within `LOCK_TIMEOUT`."""
        import psycopg

        try:
            row = self._connection.execute(statement, parameters).fetchone()
        except psycopg.errors.LockNotAvailable:
            return False
        return bool(row and row[0])
