"""Every error that hpsearch raises on purpose, and the exit code each one ends a command with.

    HpsearchError                 1   something went wrong that is not the caller's doing
    ├── TrainingError             1   a run of the trainer could not be carried out
    ├── CheckpointError           1   a checkpoint is damaged or belongs to another run
    ├── DiskError                 1   a file or the database cannot be written: the disk is full, most likely
    ├── StudyStoppedError         1   the search gave up: the same failure again and again, or no draw in the limits
    ├── LeaseLostError            1   the locks of this process are gone with its connection: somebody else may hold them by now
    ├── OutageError               3   the database's server cannot be reached, however long it was waited for
    └── UsageError                2   what was asked cannot be done; nothing was written
        ├── ComponentError        2   a model, optimizer, schedule or data set: unknown, twice, or does not import
        ├── ConfigError           2   a value that its owner does not take
        ├── StudyFileError        2   a study file that cannot be read or does not make sense
        ├── DataError             2   images that are missing, cut or not what they should be
        ├── StorageError          2   a storage URL or a database that cannot be used
        ├── StudyNotFoundError    2   no study, or no trial, of that name
        └── NotComparableError    2   the study file differs from what the stored trials were made with

A message states what was expected and what was found; `hint` says what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HpsearchError(Exception):
    """The root of the tree.

    Args:
        message: what was expected and what was found, in one sentence.
        hint: what to do about it; empty when the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class TrainingError(HpsearchError):
    """A run of the trainer could not be carried out."""


class CheckpointError(HpsearchError):
    """A checkpoint is damaged, or belongs to another run."""


class DiskError(HpsearchError):
    """A file or the database cannot be written: the disk is full, most likely."""


class StudyStoppedError(HpsearchError):
    """The search gave up before its budget was spent."""


class LeaseLostError(HpsearchError):
    """The locks of this process are gone with its connection: somebody else may hold them by now."""


class OutageError(HpsearchError):
    """The database's server cannot be reached, however long it was waited for."""

    exit_code = 3


class UsageError(HpsearchError):
    """What was asked cannot be done; nothing was written."""

    exit_code = 2


class ComponentError(UsageError):
    """A model, optimizer, schedule or data set is unknown, registered twice, or does not import."""


class ConfigError(UsageError):
    """A value that its owner does not take."""


class StudyFileError(UsageError):
    """A study file cannot be read or does not make sense."""


class DataError(UsageError):
    """Images are missing, cut short or not what they should be."""


class StorageError(UsageError):
    """A storage URL, or the database behind it, cannot be used."""


class StudyNotFoundError(UsageError):
    """No study, or no trial, of that name."""


class NotComparableError(UsageError):
    """The study file differs from what the stored trials were made with."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the closest known name, or the list of them when none is close."""
    names = list(dict.fromkeys(known))
    # A name of 100 kB would make the comparison, not the answer, the work.
    close = difflib.get_close_matches(name, names, n=1) if len(name) <= 100 else []
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names)}." if names else ""
