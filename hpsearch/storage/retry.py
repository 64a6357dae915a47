"""How long this process waits for its database, and what may end the wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

MAX_WAIT_AFTER_STOP = 2.0
"""Seconds to wait for a database once this process was asked to stop."""


class RetryPolicy:
    """How long the connections of one storage wait.

    Args:
        max_wait: seconds.

    Attributes:
        stop_requested: whether this process was asked to stop.
        before_retry: called when the database answers again, before what it interrupted is tried once more; what it raises ends the wait.
    """

    def __init__(self, *, max_wait: float) -> None:
        self.max_wait = max_wait
        self.stop_requested: Callable[[], bool] = lambda: False
        self.before_retry: Callable[[], None] = lambda: None
        self._here = threading.local()

    @property
    def is_active(self) -> bool:
        """Whether this thread is in a call that waits already."""
        return getattr(self._here, "waits", False)

    def retry(
        self,
        call: Callable[[], Result],
        *,
        is_transient: Callable[[Exception], bool],
        delays: Iterator[float],
        on_error: Callable[[Exception, float], None],
    ) -> Result:
        """Call until no error is in the way that is_transient by itself.

        A call within a call does not wait for itself: what it raises reaches the outer one.

        Args:
            is_transient: whether an error may be gone at the next try.
            delays: seconds between two tries.
            on_error: told of each error, and for how many seconds it has lasted.

        Raises:
            Exception: the last error, after the max_wait wait.
        """
        if self.is_active:
            return call()
        self._here.waits = True
        started: float | None = None
        try:
            while True:
                try:
                    if started is not None:
                        self.before_retry()
                    return call()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    started = time.monotonic() if started is None else started
                    waited = time.monotonic() - started
                    if waited > (MAX_WAIT_AFTER_STOP if self.stop_requested() else self.max_wait):
                        raise
                    on_error(error, waited)
                time.sleep(next(delays))
        finally:
            self._here.waits = False
