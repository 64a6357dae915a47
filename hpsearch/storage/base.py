"""The base class of the two kinds of storage: a SQLite file and a PostgreSQL database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from optuna.storages import RDBStorage

from hpsearch.errors import HpsearchError
from hpsearch.storage.retry import Result, RetryPolicy

VERSION_TABLE = "alembic_version"
"""The table that Optuna makes and fills last. A database without it is not complete."""


class Database(ABC):
    """A database, which may not exist yet.

    Attributes:
        display_url: the URL without its query, and with `***` for user and password.
        max_wait: seconds to wait for a database that is locked or down.
    """

    max_wait: ClassVar[float]

    def __init__(self, display_url: str) -> None:
        self.display_url = display_url

    @property
    def may_write(self) -> bool:
        """Whether this user may write to the database, as far as that is known without trying."""
        return True

    @abstractmethod
    def check(self, *, create: bool, read_only: bool = False) -> None:
        """Check that the database can be used, without writing to the database.

        Args:
            create: whether a database without tables is allowed, because the caller will make the tables.
            read_only: whether a database is enough that this user may only read.

        Raises:
            StorageError: the database cannot be used.
            StudyNotFoundError: there are no tables, and `create` is false.
        """

    @abstractmethod
    def open(self, retry_policy: RetryPolicy, *, create: bool, read_only: bool) -> RDBStorage:
        """Open the database with Optuna.

        Args:
            retry_policy: decides how long this process waits for the database.
            create: whether to make the tables if there are none.
            read_only: whether nothing will be written.

        Returns:
            Optuna's storage.

        Raises:
            StorageError: the folder of a file cannot be made.
            SQLAlchemyError: the database cannot be used.
            RuntimeError: the database holds the tables of another version of Optuna.
        """

    @abstractmethod
    def retry(self, retry_policy: RetryPolicy, call: Callable[[], Result]) -> Result:
        """Call a function again and again until the database answers.

        Args:
            retry_policy: decides how long to wait.
            call: the function; it must be safe to repeat.

        Returns:
            The result of the function.

        Raises:
            OutageError: the database stayed down for the whole wait.
        """

    @abstractmethod
    def wait_for(self, retry_policy: RetryPolicy) -> None:
        """Wait until the database accepts connections.

        Args:
            retry_policy: decides how long to wait.

        Raises:
            OutageError: the database stayed down for the whole wait.
            StorageError: the database refuses the connection.
        """

    @abstractmethod
    def require_exists(self) -> None:
        """Raise an error if the file of the database is gone.

        Raises:
            DiskError: the file is gone.
        """

    @abstractmethod
    def is_unavailable(self, error: BaseException) -> bool:
        """Return whether an error means that the database is locked or down for the moment.

        Args:
            error: an error of SQLAlchemy or of a database driver.

        Returns:
            True if the database is locked or down for the moment.
        """

    @abstractmethod
    def open_error(self, error: BaseException) -> HpsearchError:
        """Describe why the database could not be opened.

        Args:
            error: an error of SQLAlchemy or of a database driver.

        Returns:
            An error with a message and a hint for the user.
        """
