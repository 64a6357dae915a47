"""What Ctrl-C and SIGTERM do to a command that runs for long."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def collect_signals(*, interrupt_at: int = 1) -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in a list instead of ending the process.

    Args:
        interrupt_at: the signal from which on each raises KeyboardInterrupt; 2 lets the first one only be noted.

    Yields:
        The numbers of the signals received so far.
    """
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) >= interrupt_at:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
