"""A study as a data frame, for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpsearch.analysis.leaderboard import records
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.errors import UsageError
from hpsearch.storage.records import read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import study_name


def trials(study: str, *, storage: str | None = None, runs: Path | str = DEFAULT_RUNS) -> Any:
    """All trials of a study as a pandas data frame: a row a trial, a column a fact or a parameter.

    Args:
        study: a study's name, or a study file.
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.

    Raises:
        UsageError: there is no such study, or no pandas.

    Example:
        A search of the study `stripes` has ended in the folder `runs`.

        >>> import hpsearch
        >>> table = hpsearch.trials("stripes")
        >>> len(table), table["model"][0]
        (8, 'lenet5')
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("a data frame needs pandas, which is not installed", hint='pip install "hpsearch[notebook]"') from error
    store = Workspace(storage=storage, runs=Path(runs)).open()
    try:
        return pandas.DataFrame(records(read_trials(store.load(study_name(study)))))
    finally:
        store.dispose()
