"""A PostgreSQL server as storage. Its connections notice an outage, and calls to the server wait until the outage is over.

A server can restart, crash, fail over or hang, and a network can break. Then hpsearch repeats the interrupted call. Repeating
is safe, because each call of Optuna is one transaction. Sometimes the transaction succeeds, and only the answer of the server
is lost. Then the repeated call changes nothing, or it leaves an extra trial. A worker trains the extra trial later.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from hpsearch.errors import HpsearchError, OutageError, StorageError, StudyNotFoundError
from hpsearch.storage.base import VERSION_TABLE, Database
from hpsearch.storage.optuna_internals import RDB_METHODS
from hpsearch.storage.retry import Result, RetryPolicy

if TYPE_CHECKING:
    import psycopg

DRIVER = "postgresql+psycopg"
OUTAGE_WAIT = 120.0
"""Seconds to wait for a server that is down. A restart or a failover takes less time."""
ANSWER_WAIT = 15.0
"""Seconds to wait for the answer to a statement, which normally takes milliseconds. If a server or a network fails, no answer comes."""
FIRST_DELAY, MAX_DELAY = 0.1, 2.0
"""Seconds before the second try, and the longest delay. The delay doubles each time, because many workers reconnect together."""
CONNECTION_OPTIONS = {
    "connect_timeout": 10,
    "application_name": "hpsearch",
    "client_encoding": "UTF8",
    # With these options, this process notices a lost server after eleven seconds.
    # With SESSION_SETTINGS, the server notices a lost process after the same time.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
}
"""Connection parameters of libpq. Parameters in the URL take precedence."""
SESSION_SETTINGS = {
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 11_000,
    # With this setting, a statement that waits for a lock ends when its client is gone.
    "client_connection_check_interval": 2_000,
    # The role or the database may have timeouts. 0 means no timeout. The session that holds the locks is idle while a trial
    # trains, and waits in a queue for a lock. `ANSWER_WAIT` limits every statement.
    "idle_session_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "statement_timeout": 0,
    "transaction_timeout": 0,
    "lock_timeout": 0,
}
"""Settings of the server for a session, in milliseconds or seconds. Every role may change them."""
SET_SESSION = "SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES {}) AS wanted (name, value) USING (name)".format(
    ", ".join(f"('{name}', '{value}')" for name, value in SESSION_SETTINGS.items())
)
"""The statement for the settings. An older server does not know all of them; for those it does nothing."""
TRANSIENT_STATES = frozenset(
    (
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now: the server is starting
        "57P05",  # idle_session_timeout
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
        "57014",  # query_canceled: by a timeout or an administrator
        "53300",  # too_many_connections
        "25006",  # read_only_sql_transaction: a standby that is not promoted yet
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
    )
)
"""SQLSTATEs (error codes) of temporary errors. Codes that begin with 08, lost connections, are temporary too."""
CLIENT_ERRORS = ("sslmode", "certificate", "invalid connection option", "password supplied")
"""Words in errors that libpq itself reports. These errors are not temporary."""
TRANSIENT_REFUSALS = ("the database system is", "too many", "remaining connection slots")
"""Words with which a running server refuses a connection for a short time. libpq reports no SQLSTATE for this, only the text."""

RESUME_HINT = "Nothing is lost: checkpoints hold what was trained. Once the database is back, the same command continues."


class PostgresServer(Database):
    """A database on a PostgreSQL server.

    Attributes:
        url: the URL, with the password if there is one.
    """

    max_wait = OUTAGE_WAIT

    def __init__(self, url: URL) -> None:
        self.url = url.set(drivername=DRIVER)
        # The query may hold a password too, which SQLAlchemy would print.
        shown = URL.create(DRIVER, host=url.host, port=url.port, database=url.database).render_as_string()
        super().__init__(shown if url.username is None else shown.replace("://", "://***@", 1))

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a connection that notices when the server stops answering.

        Args:
            options: further arguments of `psycopg.connect`.

        Returns:
            The connection.

        Raises:
            psycopg.OperationalError: the server cannot be reached, or refuses the connection.
            StorageError: psycopg is not installed.
        """
        connection_class = _connection_class(self.display_url)
        _, parameters = self.url.get_dialect()().create_connect_args(self.url)
        connection = connection_class.connect(**{**CONNECTION_OPTIONS, **parameters}, **options)
        autocommit = connection.autocommit
        connection.autocommit = True
        connection.execute(SET_SESSION)
        connection.autocommit = autocommit
        return connection

    def open(self, retry_policy: RetryPolicy, *, create: bool, read_only: bool) -> RDBStorage:
        return _RetryingStorage(self, retry_policy, create=create)

    def check(self, *, create: bool, read_only: bool = False) -> None:
        psycopg = _driver(self.display_url)
        try:
            with self.connect() as connection:
                row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [VERSION_TABLE]).fetchone()
        except psycopg.Error as error:
            raise self.open_error(error) from error
        if not create and not (row and row[0]):
            raise StudyNotFoundError(f"there are no studies in {self.display_url} yet", hint="`hpsearch run` with a study file makes one.")

    def wait_for(self, retry_policy: RetryPolicy) -> None:
        psycopg = _driver(self.display_url)
        try:
            self.retry(retry_policy, lambda: self.connect().close())
        except psycopg.Error as error:
            raise self.open_error(error) from error

    def require_exists(self) -> None:
        """Do nothing, because the next statement notices a server that is down."""

    def is_unavailable(self, error: BaseException) -> bool:
        return is_transient(error)

    def retry(self, retry_policy: RetryPolicy, call: Callable[[], Result]) -> Result:
        def warning(error: Exception) -> str:
            return f"{self.display_url} is down ({error_text(error)}); waiting for up to {retry_policy.max_wait:.0f} seconds"

        is_inner = retry_policy.is_active
        try:
            return retry_policy.retry(call, is_transient=self._is_transient, delays=_delays(), warning=warning)
        except Exception as error:
            if self._is_transient(error) and not is_inner:
                retry_policy.max_wait = 0.0  # a process that waited in vain does not wait again
                raise OutageError(f"the database {self.display_url} cannot be reached: {error_text(error)}", hint=RESUME_HINT) from error
            raise

    def open_error(self, error: BaseException) -> HpsearchError:
        cause = error_text(error)
        hints = {
            "ssl": "See the section on TLS in docs/postgres.md.",
            "certificate": "See the section on TLS in docs/postgres.md.",
            "password": "Give it by PGPASSWORD or a PGPASSFILE; see docs/postgres.md.",
            "does not exist": "`createdb` makes a database, `createuser` a role; see docs/postgres.md.",
            "too many": "Each worker holds two connections; raise max_connections, or run fewer workers.",
            "connection slots": "Each worker holds two connections; raise max_connections, or run fewer workers.",
            "permission denied": "Its role must be allowed to make tables there; see docs/postgres.md.",
            "read-only": "It is a standby, or the role may only read; see docs/postgres.md.",
        }
        hint = next((hint for word, hint in hints.items() if word in cause), "Is the server running, and are host and port right?")
        return StorageError(f"cannot use the storage {self.display_url}: {cause}", hint=hint)

    def _is_transient(self, error: BaseException) -> bool:
        return self.is_unavailable(origin(error))


def is_transient(error: BaseException) -> bool:
    """Return whether an error is temporary, so that the next try may succeed.

    Args:
        error: an error of SQLAlchemy or psycopg.

    Returns:
        True if the next try may succeed.
    """
    import psycopg

    if isinstance(error, PendingRollbackError):  # Optuna used a session after its connection was lost
        return True
    error = (error.orig or error) if isinstance(error, DBAPIError) else error
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate in TRANSIENT_STATES or error.sqlstate.startswith("08")
    text = str(error)
    # "FATAL" means that a running server refused the connection, for example because the password is wrong.
    is_refusal = "FATAL" in text or any(each in text for each in CLIENT_ERRORS)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and (
        not is_refusal or any(each in text for each in TRANSIENT_REFUSALS)
    )


def origin(error: BaseException) -> BaseException:
    """Return the error that caused an error of Optuna.

    Args:
        error: an error of Optuna, SQLAlchemy or a database driver.

    Returns:
        The error of SQLAlchemy that caused `error`. If there is none, `error` itself.
    """
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def error_text(error: BaseException) -> str:
    """Return the message of the server or the network.

    Args:
        error: an error of Optuna, SQLAlchemy or a database driver.

    Returns:
        One line.
    """
    error = origin(error)
    if isinstance(error, PendingRollbackError):
        return "the connection was lost"
    text = str((error.orig or error) if isinstance(error, DBAPIError) else error).strip()
    # The text is "connection failed: connection to server at …, port … failed: FATAL: …", repeated for each address of the host.
    if "FATAL:" in text:
        return text.rsplit("FATAL:", 1)[1].strip().splitlines()[0]
    return (text.splitlines() or [type(error).__name__])[0].rsplit("failed: ", 1)[-1]


def _delays() -> Iterator[float]:
    delay = FIRST_DELAY
    while True:
        yield delay
        delay = min(2 * delay, MAX_DELAY)


class _RetryingStorage(RDBStorage):
    """Optuna's storage, whose calls are repeated after an outage."""

    def __init__(self, server: PostgresServer, retry_policy: RetryPolicy, *, create: bool) -> None:
        self._server, self._retry_policy = server, retry_policy
        # Optuna and psycopg would log each lost connection with the whole statement. `PostgresServer.retry` logs an outage already.
        logging.getLogger(RDBStorage.__module__).setLevel(logging.ERROR)
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        # Optuna gets the URL without secrets, because `server.connect` makes the connections.
        super().__init__(
            server.display_url,
            skip_table_creation=not create,
            engine_kwargs={"creator": server.connect, "pool_pre_ping": True, "pool_size": 1, "max_overflow": 8},
        )

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Set the state of a trial, as Optuna does. If an earlier try already ended the trial, the retry succeeds."""
        tries = itertools.count()

        def call() -> bool:
            again = next(tries) > 0
            try:
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                if again and RDBStorage.get_trial(self, trial_id).state == state:
                    return True
                raise

        return self._server.retry(self._retry_policy, call)


def _waits(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def call(self: _RetryingStorage, *arguments: Any, **options: Any) -> Any:
        return self._server.retry(self._retry_policy, lambda: method(self, *arguments, **options))

    return call


for _name in {*RDB_METHODS} - {*vars(_RetryingStorage)}:
    setattr(_RetryingStorage, _name, _waits(_name))


_connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
"""The connections of this process."""


def _disconnect_in_child() -> None:
    """Replace the sockets of all connections in a forked process.

    Without this, the server would see a living client after the death of the parent, and would keep its locks. The child could
    also end the parent's session, because a connection that is closed says so to the server.
    """
    for connection in _connections:
        if not connection.closed:
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, connection.fileno(), inheritable=False)
            os.close(nothing)


os.register_at_fork(after_in_child=_disconnect_in_child)


def _driver(display_url: str) -> Any:
    """Import psycopg. Raise StorageError if psycopg is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise StorageError(
            f"{display_url} needs the driver psycopg, which is not installed", hint='pip install "hpsearch[postgres]"'
        ) from error
    return psycopg


@functools.cache
def _connection_class(display_url: str) -> type[psycopg.Connection[Any]]:
    """Return a class of psycopg connections that do not wait forever for an answer."""
    _driver(display_url)
    import psycopg
    from psycopg.waiting import Ready

    class WatchedConnection(psycopg.Connection[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            _connections.add(self)

        def __del__(self, *_: Any) -> None:
            # Close the connection without the warning that psycopg would show. SQLite shows no warning either.
            if (connection := getattr(self, "pgconn", None)) is not None:
                connection.finish()

        def wait(self, gen: Generator[Any, Any, Result], *arguments: Any, **options: Any) -> Result:
            return super().wait(self._watched(gen), *arguments, **options)

        def _watched(self, gen: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
            """Yield the steps of `gen`. Raise an error if the server does not answer for `ANSWER_WAIT` seconds."""
            last_answer = time.monotonic()
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready != Ready.NONE:
                        last_answer = time.monotonic()
                    elif time.monotonic() - last_answer > ANSWER_WAIT:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"the server has not answered for {ANSWER_WAIT:.0f} seconds")
                    wanted = gen.send(ready)
            except StopIteration as end:
                result: Result = end.value
                return result

    return WatchedConnection
