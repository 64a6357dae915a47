"""A PostgreSQL server as storage: connections that notice when it is gone, and calls that wait until it is back.

A server restarts, crashes, fails over or hangs; a network breaks. What was asked in between is asked
again. That is safe with Optuna's calls: each is one transaction, and repeated after a commit
whose answer was lost it changes nothing, or leaves a trial that recovery finds.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from hpsearch.errors import HpsearchError, OutageError, StorageError, StudyNotFoundError
from hpsearch.storage.optuna_internals import RDB_METHODS
from hpsearch.storage.retry import RetryPolicy

if TYPE_CHECKING:
    import psycopg

DRIVER = "postgresql+psycopg"
OUTAGE_WAIT = 120.0
"""Seconds to wait for a server that is gone: longer than a restart or a failover takes."""
ANSWER_WAIT = 15.0
"""Seconds to wait for any sign of a statement's result. Ours take milliseconds; a server that is stopped, or behind a broken network, says
nothing for ever."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two tries, doubled each time: many workers come back at once."""
CONNECTING = {
    "connect_timeout": 10,
    "application_name": "hpsearch",
    "client_encoding": "UTF8",
    # A host that vanished is noticed after eleven seconds, here and, by the settings of the session, there.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
}
"""Parameters of libpq; those in the URL come first."""
SESSION = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 11000"
SESSION_14 = "SET client_connection_check_interval = 2000"
"""From version 14 on: a statement that waits for a lock ends when its client is gone."""
PASSING_STATES = frozenset(
    (
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now: it starts up
        "53300",  # too_many_connections
        "25006",  # read_only_sql_transaction: a standby that is not yet in charge
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
    )
)
"""SQLSTATEs that say: later. Those of class 08 are lost connections."""
SETTINGS = ("sslmode", "certificate", "invalid connection option", "password supplied")
"""What libpq itself finds wrong, before or while it connects."""
PASSING_REFUSALS = ("the database system is", "too many", "remaining connection slots")
"""How a server that lives refuses a connection for the moment; libpq hands on the text alone."""

RESUME_HINT = "Nothing is lost: checkpoints hold what was trained. Once it is back, the same command continues."

log = logging.getLogger("hpsearch")

Result = TypeVar("Result")


class PostgresServer:
    """A database on a PostgreSQL server.

    Attributes:
        shown: the URL without its password.
        max_wait: seconds.
    """

    max_wait = OUTAGE_WAIT

    def __init__(self, url: URL) -> None:
        self.url = url.set(drivername=DRIVER)
        # A query may hold a password as well, which SQLAlchemy would print.
        self.shown = url.set(query={}).render_as_string(hide_password=True)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A connection of psycopg's that notices when the server says nothing any more.

        Raises:
            psycopg.OperationalError: the server cannot be reached, or refuses.
            StorageError: psycopg is not installed.
        """
        kind = _connection_kind(self.shown)
        _, parameters = self.url.get_dialect()().create_connect_args(self.url)
        connection = kind.connect(**{**CONNECTING, **parameters}, **options)
        before = connection.autocommit
        connection.autocommit = True
        connection.execute(f"{SESSION}; {SESSION_14}" if connection.info.server_version >= 140_000 else SESSION)
        connection.autocommit = before
        return connection

    def open(self, retry_policy: RetryPolicy) -> RDBStorage:
        """Optuna's storage in the database, whose tables are made where there are none.

        Raises:
            SQLAlchemyError: it cannot be used.
            RuntimeError: it has the tables of another Optuna.
        """
        return _RetryingStorage(self, retry_policy)

    def check(self, *, create: bool) -> None:
        """Refuse a database that cannot be reached, or that has no studies and shall not be given any.

        Raises:
            StorageError, StudyNotFoundError: as `open_store`.
        """
        psycopg = _driver(self.shown)
        try:
            with self.connect() as connection:
                row = connection.execute("SELECT to_regclass('studies') IS NOT NULL").fetchone()
        except psycopg.Error as error:
            raise self.unusable(error) from error
        if not create and not (row and row[0]):
            raise StudyNotFoundError(f"there are no studies in {self.shown} yet", hint="`hpsearch run` with a study file makes one.")

    def wait_for(self, retry_policy: RetryPolicy) -> None:
        """Wait for a server that is away.

        Raises:
            OutageError: it stays so.
            StorageError: it is there, and refuses.
        """
        psycopg = _driver(self.shown)
        try:
            self.retry(retry_policy, lambda: self.connect().close())
        except psycopg.Error as error:
            raise self.unusable(error) from error

    def require(self) -> None:
        """Nothing: a server that is gone is noticed by whoever asks it."""

    def is_unavailable(self, error: BaseException) -> bool:
        """Whether an error, in SQLAlchemy's words or psycopg's, says that the server is gone for the moment."""
        return is_transient(error)

    def retry(self, retry_policy: RetryPolicy, call: Callable[[], Result]) -> Result:
        """Call until the server answers.

        Raises:
            OutageError: it does not, after all patience.
        """
        said = False

        def warn_once(error: Exception, waited: float) -> None:
            nonlocal said
            if not said:
                said = True
                log.warning("%s is away (%s); waiting for up to %.0f seconds", self.shown, error_text(error), retry_policy.max_wait)

        within = retry_policy.is_active
        try:
            return retry_policy.retry(call, is_transient=self._is_transient, delays=_delays(), on_error=warn_once)
        except Exception as error:
            if self._is_transient(error) and not within:
                retry_policy.max_wait = 0.0  # who waited in vain once does not wait again
                raise OutageError(f"the database {self.shown} cannot be reached: {error_text(error)}", hint=RESUME_HINT) from error
            raise

    def unusable(self, error: BaseException) -> HpsearchError:
        """What to say when the database cannot be used from the start."""
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
        return StorageError(f"cannot use the storage {self.shown}: {cause}", hint=hint)

    def _is_transient(self, error: BaseException) -> bool:
        return self.is_unavailable(origin(error))


def is_transient(error: BaseException) -> bool:
    """Whether an error, in SQLAlchemy's words or psycopg's, may be gone at the next try."""
    import psycopg

    if isinstance(error, PendingRollbackError):  # Optuna went on in a session whose connection was lost
        return True
    error = (error.orig or error) if isinstance(error, DBAPIError) else error
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate in PASSING_STATES or error.sqlstate.startswith("08")
    text = str(error)
    # "FATAL" is the answer of a server that lives: a wrong password, no such database.
    is_refusal = "FATAL" in text or any(each in text for each in SETTINGS)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and (
        not is_refusal or any(each in text for each in PASSING_REFUSALS)
    )


def origin(error: BaseException) -> BaseException:
    """What SQLAlchemy said, below Optuna's own words."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def error_text(error: BaseException) -> str:
    """What the server or the network said, in one line."""
    error = origin(error)
    if isinstance(error, PendingRollbackError):
        return "the connection was lost"
    text = str((error.orig or error) if isinstance(error, DBAPIError) else error).strip()
    # "connection failed: connection to server at …, port … failed: FATAL: …", once for each address of the host.
    if "FATAL:" in text:
        return text.rsplit("FATAL:", 1)[1].strip().splitlines()[0]
    return (text.splitlines() or [type(error).__name__])[0].rsplit("failed: ", 1)[-1]


def _delays() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


class _RetryingStorage(RDBStorage):
    """Optuna's storage, each call of which is made again when the server was gone meanwhile."""

    def __init__(self, server: PostgresServer, retry_policy: RetryPolicy) -> None:
        self._server, self._retry_policy = server, retry_policy
        # It warns of each lost connection with the whole statement, and then goes on; here it is waited for, and said.
        logging.getLogger(RDBStorage.__module__).setLevel(logging.ERROR)
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        # The URL is for Optuna's eyes: connections are made by the server's own function, so it needs no password.
        super().__init__(
            server.url.set(password=None).render_as_string(),
            engine_kwargs={"creator": server.connect, "pool_pre_ping": True, "pool_size": 1, "max_overflow": 8},
        )

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """As Optuna's; a trial that this very call has ended is not somebody else's doing."""
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


def _driver(shown: str) -> Any:
    """The module psycopg.

    Raises:
        StorageError: it is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise StorageError(f"{shown} needs the driver psycopg, which is not installed", hint='pip install "hpsearch[postgres]"') from error
    return psycopg


@functools.cache
def _connection_kind(shown: str) -> type[psycopg.Connection[Any]]:
    """psycopg's connection, but that it waits for no answer for ever."""
    _driver(shown)
    import psycopg
    from psycopg.waiting import Ready

    class Answering(psycopg.Connection[Any]):
        def __del__(self, *_: Any) -> None:
            # Whoever is done with its storage lets go of the connection without a word, as with SQLite's.
            if (connection := getattr(self, "pgconn", None)) is not None:
                connection.finish()

        def wait(self, gen: Generator[Any, Any, Result], *arguments: Any, **options: Any) -> Result:
            return super().wait(self._watched(gen), *arguments, **options)

        def _watched(self, gen: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
            """The same steps, until the server has said nothing for too long."""
            heard = time.monotonic()
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready != Ready.NONE:
                        heard = time.monotonic()
                    elif time.monotonic() - heard > ANSWER_WAIT:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"the server has not answered for {ANSWER_WAIT:.0f} seconds")
                    wanted = gen.send(ready)
            except StopIteration as end:
                result: Result = end.value
                return result

    return Answering
