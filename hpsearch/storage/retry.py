"""How long this process waits for its database, and what may end the wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

HURRIED_WAIT = 2.0
"""Seconds to wait for a database once this process was asked to stop."""


class RetryPolicy:
    """How long the connections of one storage wait.

    Args:
        longest: seconds.

    Attributes:
        hurried: whether this process was asked to stop.
        resumed: called when the database answers again, before what it interrupted is tried once more; what it raises ends the wait.
    """

    def __init__(self, *, longest: float) -> None:
        self.longest = longest
        self.hurried: Callable[[], bool] = lambda: False
        self.resumed: Callable[[], None] = lambda: None
        self._here = threading.local()

    @property
    def is_waiting(self) -> bool:
        """Whether this thread is in a call that waits already."""
        return getattr(self._here, "waits", False)

    def wait_out(
        self,
        call: Callable[[], Result],
        *,
        passes: Callable[[Exception], bool],
        pauses: Iterator[float],
        say: Callable[[Exception, float], None],
    ) -> Result:
        """Call until no error is in the way that passes by itself.

        A call within a call does not wait for itself: what it raises reaches the outer one.

        Args:
            passes: whether an error may be gone at the next try.
            pauses: seconds between two tries.
            say: told of each error, and for how many seconds it has lasted.

        Raises:
            Exception: the last error, after the longest wait.
        """
        if self.is_waiting:
            return call()
        self._here.waits = True
        started: float | None = None
        try:
            while True:
                try:
                    if started is not None:
                        self.resumed()
                    return call()
                except Exception as error:
                    if not passes(error):
                        raise
                    started = time.monotonic() if started is None else started
                    waited = time.monotonic() - started
                    if waited > (HURRIED_WAIT if self.hurried() else self.longest):
                        raise
                    say(error, waited)
                time.sleep(next(pauses))
        finally:
            self._here.waits = False
