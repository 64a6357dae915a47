"""Remembers which component files this user has run.

A file that came with a model or a config is a program of somebody else. It runs only if this user has run a file with the same
content before, or allows it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def is_trusted(sha256: str) -> bool:
    """Return whether this user has run a component file with this content before.

    Args:
        sha256: SHA-256 of the file, hexadecimal.

    Returns:
        Whether a record exists.
    """
    try:
        return (_folder() / sha256).is_file()
    except (OSError, RuntimeError):
        return False


def remember(sha256: str, path: Path) -> None:
    """Record that this user runs a component file. If nothing can be recorded, the user is asked again the next time.

    Args:
        sha256: SHA-256 of the file, hexadecimal.
        path: the file. It is written into the record for a person to read.
    """
    with suppress(OSError, RuntimeError, ValueError):
        record = _folder() / sha256
        if not record.exists():
            record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            record.write_text(f"{path}\n", encoding="utf-8")


def _folder() -> Path:
    """Return the folder with one file for each content. Its place is the one of the XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification says to ignore a relative path. A folder named by it could come with the model.
    root = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return root / "hpsearch" / "trusted"
