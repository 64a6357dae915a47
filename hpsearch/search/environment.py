"""The environment in which a process trains as fast as a worker of a search."""

from __future__ import annotations

import os
import sys


def train_like_a_worker() -> None:
    """Go on with the same command in the same process under the environment that workers have.

    The C library and the thread pools read it when they start, hence a start from the beginning.
    It comes first in a command: nothing of it has happened yet, and torch is not loaded.
    """
    from hpsearch.search.worker_pool import WORKER_ENVIRONMENT

    if all(os.environ.get(key) == value for key, value in WORKER_ENVIRONMENT.items()):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **WORKER_ENVIRONMENT})
