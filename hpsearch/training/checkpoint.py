"""Saves and loads checkpoints, and detects damaged ones. The trainer decides what a checkpoint contains.

A file begins with the line `hpsearch-checkpoint 1 <SHA-256 of the rest>`. The output of
`torch.save` follows. The previous checkpoint stays beside it, so that a damaged file costs only
one epoch.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpsearch.config.paths import partial_files, write_atomically
from hpsearch.errors import CheckpointError
from hpsearch.formatting import one_line

FORMAT = b"hpsearch-checkpoint 1"
"""Name and version of the format. They are the first bytes of a file."""

_log = logging.getLogger("hpsearch")


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Identifies the run to which a checkpoint belongs.

    Attributes:
        owner: the trial, as "study id/trial number"; empty for a run outside of a study.
        config: SHA-256 of the config (`TrainConfig.digest`).
        split: SHA-256 of the split (`Split.hash`).
    """

    owner: str
    config: str
    split: str


def save(path: Path, identity: RunIdentity, content: dict[str, Any]) -> None:
    """Write a checkpoint. The checkpoint that was there before stays beside it, in a second file.

    At every moment at least one of these two files is complete.

    Args:
        path: the file of the checkpoint.
        identity: the run to which the checkpoint belongs.
        content: tensors and plain values.

    Raises:
        DiskError: the file cannot be written. The older checkpoints are not lost.
    """
    payload = io.BytesIO()
    torch.save({"identity": vars(identity), "content": content}, payload)
    # A damaged file must not replace a good previous one.
    write_atomically(path, _sealed(payload.getvalue()), previous=previous(path) if _payload(path) is not None else None)


def load(path: Path, identity: RunIdentity) -> dict[str, Any] | None:
    """Read a checkpoint, or the previous one if the file is damaged.

    Only tensors and plain values are unpickled.

    Args:
        path: the file of the checkpoint.
        identity: the run to which the checkpoint must belong.

    Returns:
        The content, with tensors on the CPU; None if both files are missing or damaged.

    Raises:
        CheckpointError: the checkpoint belongs to another run.
    """
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        stored = _read(candidate)
        if stored is None:
            _log.warning("the checkpoint %s is damaged; going back to the one before it, or to the start", candidate)
            continue
        _require_same_run(candidate, stored["identity"], identity)
        content: dict[str, Any] = stored["content"]
        return content
    return None


def remove(checkpoint: Path) -> None:
    """Delete the checkpoints of a run, but not its predictions.

    Args:
        checkpoint: the file of the last checkpoint.
    """
    for path in (checkpoint, previous(checkpoint), *partial_files(checkpoint)):
        path.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Return the path of the previous checkpoint.

    Args:
        path: the file of the last checkpoint.

    Returns:
        A file in the same folder.
    """
    return path.with_name(f"{path.name}.previous")


def _sealed(payload: bytes) -> bytes:
    return b"%s %s\n%s" % (FORMAT, hashlib.sha256(payload).hexdigest().encode(), payload)


def _payload(path: Path) -> bytes | None:
    """Return the bytes that `torch.save` wrote; None if the file is missing or damaged."""
    try:
        sealed = path.read_bytes()
    except OSError:
        return None
    _, _, payload = sealed.partition(b"\n")
    return payload if sealed == _sealed(payload) else None


def _read(path: Path) -> dict[str, Any] | None:
    payload = _payload(path)
    if payload is None:
        return None
    try:
        stored: Any = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The state of a user's optimizer or schedule may contain objects that are not unpickled.
        _log.warning("the checkpoint %s holds something else than tensors and plain values: %s", path, error)
        return None
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds of errors for a file that it did not write
        _log.warning("the checkpoint %s cannot be read: %s", path, one_line(str(error)))
        return None
    match stored:
        case {"identity": {"owner": str(), "config": str(), "split": str()}, "content": dict()}:
            return dict(stored)
    _log.warning("the checkpoint %s has another structure", path)
    return None


def _require_same_run(path: Path, stored: dict[str, str], wanted: RunIdentity) -> None:
    for name, value in vars(wanted).items():
        if stored[name] != value:
            raise CheckpointError(
                f"the checkpoint {path} belongs to another run: its {name} is '{stored[name]}', but '{value}' was expected",
                hint="Give this run a file of its own, or delete the checkpoint to start over.",
            )
