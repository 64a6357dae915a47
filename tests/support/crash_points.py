"""Ways to die at an exact point of a trial's life, once: `DIE_AT=<point>` and `DIED=<a file that says it has>`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIE_AT, DIED = "DIE_AT", "DIED"
FATAL_TRIAL = 3
"""The trial in whose life it happens; not the first, so that others stand in the study."""

POINTS = (
    "after ask",
    "before the attempt is noted",
    "between two draws",
    "after the draws",
    "between checkpoint and store",
    "after an epoch is stored",
    "between epochs and end",
    "between end and tell",
    "after tell",
)


def arm() -> None:
    """Prepare this process's death, if the environment asks for one."""
    point = os.environ.get(DIE_AT)
    if point is None:
        return
    import optuna

    from hpsearch.search import claim, worker
    from hpsearch.storage import trial_cache

    def hook(owner: Any, name: str, *, after: bool, nth: int = 1, number: Callable[..., int]) -> None:
        inner, calls = getattr(owner, name), 0

        def hooked(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            result = inner(*arguments, **options) if after else None
            if number(result, *arguments) == FATAL_TRIAL:
                calls += 1
                if calls == nth:
                    _die()
            return result if after else inner(*arguments, **options)

        setattr(owner, name, hooked)

    def by_first(result: Any, trial: Any, *_: Any) -> int:
        return int(trial.number)

    def by_second(result: Any, worker: Any, trial: Any, *_: Any) -> int:
        return int(trial.number)

    def by_rows(result: Any, cache: trial_cache.BatchingCache, rows: Any) -> int:
        first = next(iter(rows.values()))[0]
        return cache._trial_id_to_study_id_and_number[first["trial_id"]][1]

    hooks: dict[str, Callable[[], None]] = {
        "after ask": lambda: hook(claim.Claimer, "_next", after=True, number=lambda trial, *_: trial.number if trial else -1),
        "before the attempt is noted": lambda: hook(claim, "write_attempt", after=False, number=by_first),
        "between two draws": lambda: hook(optuna.Trial, "_suggest", after=False, nth=3, number=by_first),
        "after the draws": lambda: hook(worker, "write_run", after=False, number=by_first),
        "between checkpoint and store": lambda: hook(worker, "write_epochs", after=False, nth=2, number=by_first),
        # What a trial writes: its attempt, its point, its run, an epoch, another.
        "after an epoch is stored": lambda: hook(trial_cache.BatchingCache, "_write", after=True, nth=5, number=by_rows),
        "between epochs and end": lambda: hook(worker, "write_end", after=False, number=by_first),
        "between end and tell": lambda: hook(worker.Worker, "_tell", after=False, number=by_second),
        "after tell": lambda: hook(worker.Worker, "_tell", after=True, number=by_second),
    }
    hooks[point]()


def _die() -> None:
    died = Path(os.environ[DIED])
    if not died.exists():
        died.touch()
        os._exit(137)
