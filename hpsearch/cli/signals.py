"""Handles Ctrl-C and SIGTERM in commands that run for a long time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def collect_signals(*, interrupt_at: int = 1) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list. These signals then do not end the process.

    Args:
        interrupt_at: number of the first signal that raises KeyboardInterrupt. If it is 2, the first signal is only collected.

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
