"""Repeat a call to the database until it works, or until this process has waited long enough."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

log = logging.getLogger("hpsearch")

Result = TypeVar("Result")

MAX_WAIT_AFTER_STOP = 2.0
"""Seconds to wait for a database once this process was asked to stop."""


class RetryPolicy:
    """How long the connections of one storage wait.

    Attributes:
        max_wait: seconds from the first error on.
        stop_requested: returns whether this process was asked to stop.
        before_retry: called before each new try; an error that it raises ends the wait.
    """

    def __init__(self, *, max_wait: float) -> None:
        self.max_wait = max_wait
        self.stop_requested: Callable[[], bool] = lambda: False
        self.before_retry: Callable[[], None] = lambda: None
        self._thread = threading.local()

    @property
    def is_active(self) -> bool:
        """Whether this thread is inside a call that is retried already."""
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
        """Call a function until it raises no transient error.

        A call inside another one is not retried: its errors reach the outer call.

        Args:
            call: the function; it must be safe to repeat.
            is_transient: whether an error may be gone at the next try.
            delays: seconds between two tries.
            warning: returns the text to log, once, for a transient error.
            warn_after: seconds of waiting before that.

        Returns:
            The result of the function.

        Raises:
            Exception: the first error that is not transient, or the last one after the longest wait.
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
