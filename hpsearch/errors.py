"""Every error that hpsearch raises on purpose, with the exit code of a command that ends with the error.

    HpsearchError                 1
    ├── TrainingError             1
    ├── CheckpointError           1
    ├── DiskError                 1
    ├── StudyStoppedError         1
    ├── LeaseLostError            1
    ├── WorkerDiedError           1
    ├── OutageError               3
    └── UsageError                2
        ├── ComponentError        2
        ├── ConfigError           2
        ├── StudyFileError        2
        ├── DataError             2
        ├── StorageError          2
        ├── StudyNotFoundError    2
        └── NotComparableError    2

The message of an error states what was expected and what was found. Its `hint` says how to correct the problem.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class HpsearchError(Exception):
    """The base class of all errors that hpsearch raises on purpose.

    Args:
        message: what was expected and what was found, in one sentence.
        hint: how to correct the problem; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class TrainingError(HpsearchError):
    """A training run failed."""


class CheckpointError(HpsearchError):
    """A checkpoint is damaged, or belongs to another run."""


class DiskError(HpsearchError):
    """A file or the database cannot be written, most likely because the disk is full."""


class StudyStoppedError(HpsearchError):
    """The search ended before its budget was spent. Either the same failure repeats, or every drawn configuration exceeds the limits."""


class LeaseLostError(HpsearchError):
    """This process lost a lock, with its connection to the database or with the lock's file. Another process may now hold the lock."""


class WorkerDiedError(HpsearchError):
    """The process that trained a trial died.

    Args:
        exit_code: the exit code of the process; minus the number of the signal that killed the process.
    """

    def __init__(self, exit_code: int) -> None:
        self.cause = cause_of_death(exit_code)
        super().__init__(f"the process of the trial died ({self.cause})")


def cause_of_death(exit_code: int) -> str:
    """Describe how a process ended.

    Args:
        exit_code: its exit code; minus the number of a signal.

    Returns:
        The name of the signal, such as `SIGSEGV`, or the exit code.
    """
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


class OutageError(HpsearchError):
    """The database server stayed down for the whole time that hpsearch waits for a server."""

    exit_code = 3


class UsageError(HpsearchError):
    """The request cannot be carried out. Nothing was written."""

    exit_code = 2


class ComponentError(UsageError):
    """A model, optimizer, schedule or data set is unknown, registered twice, or cannot be imported."""


class ConfigError(UsageError):
    """A value is not allowed."""


class StudyFileError(UsageError):
    """A study file cannot be read or does not make sense."""


class DataError(UsageError):
    """Images are missing, incomplete or invalid."""


class StorageError(UsageError):
    """A storage URL or its database cannot be used."""


class StudyNotFoundError(UsageError):
    """There is no such study or trial."""


class NotComparableError(UsageError):
    """The study file differs from the study file with which the stored trials were made."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the known name closest to a wrong name.

    Args:
        name: the wrong name.
        known: the names to choose from.

    Returns:
        The sentence. It lists all known names if no known name is close. It is empty if `known` is empty.
    """
    names = list(dict.fromkeys(known))
    # Comparing a name of 100 kB would take too long.
    close = difflib.get_close_matches(name, names, n=1) if len(name) <= 100 else []
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names)}." if names else ""
