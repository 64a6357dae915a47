"""Kill a process at a failpoint of one trial, once: `DIE_AT=<failpoint>`, and `DIED=<file that marks the death>`."""

from __future__ import annotations

import os
from pathlib import Path

from hpsearch.search import failpoints
from hpsearch.search.failpoints import Failpoint

DIE_AT, DIED = "DIE_AT", "DIED"
FATAL_TRIAL = 3
"""The trial in which the process dies; not the first, so that the study has other trials."""
RUNG_POINTS = (Failpoint.BETWEEN_RUNG_AND_DECISION, Failpoint.BETWEEN_PAUSE_AND_QUEUE)
"""Failpoints that only a study with paused trials reaches."""
FATAL_VISIT = {Failpoint.BETWEEN_DRAWS: 3, Failpoint.BETWEEN_CHECKPOINT_AND_STORE: 2, Failpoint.AFTER_EPOCH: 2}
"""A trial reaches some failpoints several times: the visit at which the process dies; 1 by default."""


def arm() -> None:
    """Install the hook that kills this process, if the environment asks for it."""
    if DIE_AT not in os.environ:
        return
    fatal = Failpoint(os.environ[DIE_AT])
    visits = 0

    def die_at(point: Failpoint, trial: int) -> None:
        nonlocal visits
        if point is fatal and trial == FATAL_TRIAL:
            visits += 1
            if visits == FATAL_VISIT.get(fatal, 1):
                _die()

    failpoints.on_reached = die_at


def _die() -> None:
    died = Path(os.environ[DIED])
    if not died.exists():
        died.touch()
        os._exit(137)
