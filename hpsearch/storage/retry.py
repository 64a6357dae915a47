"""Repeat a call to the database until the call succeeds, or until this process has waited long enough."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

log = logging.getLogger("hpsearch")

Result = TypeVar("Result")

MAX_WAIT_AFTER_STOP = 2.0
"""Maximum number of seconds to wait for a database after this process was asked to stop."""


class RetryPolicy:
    """Decides how long the connections to one database keep trying.

    Attributes:
        max_wait: seconds to wait, counted from the first error.
        stop_requested: returns whether this process was asked to stop.
        before_retry: function that is called before each new try. An error that the function raises ends the wait.
    """

    def __init__(self, *, max_wait: float) -> None:
        self.max_wait = max_wait
        self.stop_requested: Callable[[], bool] = lambda: False
        self.before_retry: Callable[[], None] = lambda: None
        self._thread = threading.local()

    @property
    def is_active(self) -> bool:
        """Whether this thread is already inside a call of `retry`."""
        return getattr(self._thread, "is_active", False)

    def retry(
        self,
        call: Callable[[], Result],
        *,
        is_transient: Callable[[Exception], bool],
        delays: Iterator[float],
        warning: Callable[[Exception], str],
        warn_after: float = 0.0,
    ) -> Result:
        """Call a function. After a temporary error, wait and call the function again.

        `call` may itself use `retry`. Such an inner `retry` does not wait: it raises the error, and the outer `retry` repeats the whole call.

        Args:
            call: the function; it must be safe to repeat.
            is_transient: returns whether an error is temporary. A temporary error may disappear by itself; any other error is permanent.
            delays: endless iterator of the seconds between two tries.
            warning: returns the text to log for a temporary error. Only one warning is logged.
            warn_after: the warning is logged when this number of seconds has passed since the first error.

        Returns:
            The result of the function.

        Raises:
            Exception: the first permanent error, or the last temporary error when `self.max_wait` seconds have passed since the first.
        """
        if self.is_active:
            return call()
        self._thread.is_active = True
        first_error: float | None = None
        warned = False
        try:
            while True:
                try:
                    if first_error is not None:
                        self.before_retry()
                    return call()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    first_error = time.monotonic() if first_error is None else first_error
                    waited = time.monotonic() - first_error
                    if waited > (MAX_WAIT_AFTER_STOP if self.stop_requested() else self.max_wait):
                        raise
                    if waited >= warn_after and not warned:
                        warned = True
                        log.warning(warning(error))
                time.sleep(next(delays))
        finally:
            self._thread.is_active = False
