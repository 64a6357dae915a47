"""Describe why a trial failed, in text of limited length."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from hpsearch.errors import TrainingError

MAX_REASON = 300
"""Maximum number of characters of a reason."""
MAX_DETAILS = 16_000
"""Maximum number of characters of a traceback. The message of an error can be longer than the memory of a database row."""
LIBRARIES = (str(Path(__file__).parents[1]), *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
"""Folders of code that no user of hpsearch has written."""


class TrialFailure(TrainingError):
    """A trial failed. The message is the reason, in one line.

    Attributes:
        details: the traceback; may be empty.
        place: the type of the error and the line of code that raised it; may be empty. Two failures with the same place, unless it
            is empty, have the same cause, even if their messages name different values.
    """

    def __init__(self, reason: str, details: str = "", place: str = "") -> None:
        super().__init__(reason)
        self.details = details
        self.place = place

    @classmethod
    def from_error(cls, error: BaseException) -> TrialFailure:
        """Describe an error that user code or the trainer raised.

        Args:
            error: the error, with its traceback.

        Returns:
            The failure.
        """
        return cls(_reason(error), shorten("".join(traceback.format_exception(error))), _place(error))


def shorten(text: str) -> str:
    """Shorten a long text to its beginning and its end.

    Args:
        text: a text of any length.

    Returns:
        The text, with at most about `MAX_DETAILS` characters.
    """
    half = MAX_DETAILS // 2
    left_out = len(text) - 2 * half
    return text if left_out <= 0 else f"{text[:half]}\n… {left_out:,} characters left out …\n{text[-half:]}"


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    out_of_memory = isinstance(error, MemoryError) or "out of memory" in first.lower() or "can't allocate memory" in first.lower()
    kind = "out of memory" if out_of_memory else type(error).__name__
    return f"{kind}: {first[:MAX_REASON]}" if first else kind


def _place(error: BaseException) -> str:
    """Return the type of the first error of a chain, and the innermost line of user code that led to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*LIBRARIES, "<"))] or frames
    where = f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{where}"
