"""Folders that their user may only read, also where root runs the tests, and what a folder holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()
"""The beginning of a command line. It takes from root the right to write where nobody may write."""


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder, by name, with its content's hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write from everything below a folder, for the length of a block that must change nothing there."""
    before = snapshot(folder)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
        assert snapshot(folder) == before
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
