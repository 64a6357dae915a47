"""Checkpoints as files that appear whole or not at all, and that show when a byte of them is wrong.

What goes into one and what it means is the trainer's business. A file is one line,
`hpsearch-checkpoint 1 <SHA-256 of the rest>`, and then what `torch.save` writes. The one before
it is kept beside it, so that one damaged file costs one epoch.
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

FORMAT = b"hpsearch-checkpoint 1"

_log = logging.getLogger("hpsearch")


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Which run a checkpoint belongs to.

    Attributes:
        owner: whose it is, as "study id / trial number"; empty for a run of nobody's.
        config: the digest of the config.
        split: the hash of the split.
    """

    owner: str
    config: str
    split: str


def save(path: Path, identity: RunIdentity, content: dict[str, Any]) -> None:
    """Write a checkpoint; the one that was there becomes the previous one.

    At every moment at least one whole checkpoint stands under one of the two names.

    Raises:
        DiskError: the file cannot be written; the older checkpoints are still there.
    """
    payload = io.BytesIO()
    torch.save({"identity": vars(identity), "content": content}, payload)
    # A damaged file must not push out a good previous one.
    write_atomically(path, _sealed(payload.getvalue()), previous=previous(path) if _payload(path) is not None else None)


def load(path: Path, identity: RunIdentity) -> dict[str, Any] | None:
    """The content of the checkpoint, or of the one before it where it is damaged; None where both are missing or damaged.

    Tensors come on the CPU. Nothing but tensors and plain values is ever unpickled.

    Raises:
        CheckpointError: it belongs to another run.
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
    """Delete a run's checkpoints; its predictions stay."""
    for path in (checkpoint, previous(checkpoint), *partial_files(checkpoint)):
        path.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one stands."""
    return path.with_name(f"{path.name}.previous")


def _sealed(payload: bytes) -> bytes:
    return b"%s %s\n%s" % (FORMAT, hashlib.sha256(payload).hexdigest().encode(), payload)


def _payload(path: Path) -> bytes | None:
    """What `torch.save` wrote; None where the file is missing or a byte of it is wrong."""
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
        stored: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # A user's optimizer or schedule may keep objects of its own in its state.
        _log.warning("the checkpoint %s holds something else than tensors and plain values: %s", path, error)
        return None
    return stored


def _require_same_run(path: Path, stored: dict[str, str], wanted: RunIdentity) -> None:
    for name, value in vars(wanted).items():
        if stored[name] != value:
            raise CheckpointError(
                f"the checkpoint {path} belongs to another run: its {name} is '{stored[name]}', but '{value}' was expected",
                hint="Give this run a file of its own, or delete the checkpoint to start over.",
            )
