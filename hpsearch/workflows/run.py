"""Prepare a search and run it. To prepare a search means to check everything and to create or continue the study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import optuna

from hpsearch.analysis.leaderboard import rank
from hpsearch.config.components import DATASET_IMAGES, Scalar
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.config.study_file import StudyFile, load_study_file
from hpsearch.errors import ConfigError, HpsearchError, UsageError
from hpsearch.formatting import show
from hpsearch.search.claim import requeue_interrupted
from hpsearch.search.ray_pool import RayEngine
from hpsearch.search.worker_pool import WorkerCount, default_workers
from hpsearch.storage.locks import Lease, claim_lock, manual_lock
from hpsearch.storage.optuna_internals import get_study_id, get_trial_id
from hpsearch.storage.records import BY_HAND, TrialKey, read_identity, read_study, read_trial, read_trials
from hpsearch.storage.sqlite import SqliteFile
from hpsearch.storage.study_folder import claim_folder, require_own_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.training.data.files import prepare
from hpsearch.workflows.precision import choose_precision
from hpsearch.workflows.repeat_study import follow_up_file, is_follow_up, read_plan, stored_file
from hpsearch.workflows.resume import create_or_continue, queue_failed_again, searched_values
from hpsearch.workflows.supervisor import Search

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def find_study_file(study: str, workspace: Workspace) -> StudyFile:
    """Load a study file, or return the study file with which a stored study was last run.

    Args:
        study: a study file, or the name of a stored study.
        workspace: the database and the folders of the study.

    Returns:
        The study file.

    Raises:
        StudyFileError, ComponentError: the file is not valid.
        StudyNotFoundError: there is no such study.
    """
    if _is_file(study):
        return load_study_file(Path(study))
    store = workspace.open(read_only=True)
    try:
        stored = store.load(study)
        file = stored_file(stored, workspace.component_folder)
        return follow_up_file(file, read_plan(stored, file)) if is_follow_up(stored) else file
    finally:
        store.dispose()


def study_name(study: str) -> str:
    """Return the name of a study.

    Args:
        study: a study file, or the name itself.

    Returns:
        The name.
    """
    return load_study_file(Path(study)).name if _is_file(study) else study


def _is_file(study: str) -> bool:
    return study.endswith(".toml") or "/" in study


def prepare_search(
    file: StudyFile,
    workspace: Workspace,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    engine: RayEngine | None = None,
) -> Search:
    """Check everything, then create the study or continue it.

    Args:
        file: the study file.
        workspace: the database and the folders of the study.
        trials: budget of trials; None for the budget in the study file.
        epochs: budget of epochs; None for the budget in the study file.
        seconds: budget of time, in seconds; None for the budget in the study file.
        workers: number of workers; None for the default.
        retry_failed: whether to queue the failed trials again, each as a new trial beyond the budget.
        engine: the cluster of the workers; None for this machine.

    Returns:
        The search, ready to run.

    Raises:
        UsageError: the data, the storage, the study or its folder cannot be used. No study was written.
        NotComparableError: new trials could not be compared with the stored trials.
    """
    base, _, kind = file.name.partition(".")
    if kind:
        raise UsageError(f"'{file.name}' belongs to the study '{base}'", hint=f"`hpsearch {kind} {base}` continues it.")
    check_workspace(file, workspace)
    budget = file.budget.model_copy(update={k: v for k, v in (("trials", trials), ("epochs", epochs), ("time", seconds)) if v is not None})
    count = count_workers(workspace, engine, workers, budget.min_trials(file.space.max_epochs))
    try:
        # Several processes that create tables in one empty database would disturb each other.
        with workspace.creation_lock():
            store = workspace.open(create=True)
            require_own_folder(file.name, workspace, store)
            auto = {} if engine is not None else choose_precision(workspace.device)  # machines of a cluster may differ
            study, earlier, changed = create_or_continue(store, file, budget, auto)
    except HpsearchError:
        workspace.locks.clean_up()
        raise
    claim_folder(file.name, workspace, store)
    with workspace.locks.hold(claim_lock(get_study_id(study))):
        requeued = requeue_interrupted(store, study, workspace.locks)
        retried = queue_failed_again(study) if retry_failed else []
    return Search(
        file=file.with_precision(read_study(study).auto_precision),
        workspace=workspace,
        store=store,
        study=study,
        identity=read_identity(study),
        budget=budget,
        workers=count,
        earlier=earlier,
        changed=changed,
        requeued=tuple(requeued),
        retried=tuple(retried),
        engine=engine,
    )


def count_workers(workspace: Workspace, engine: RayEngine | None, workers: int | None, trials: int) -> WorkerCount:
    """Choose the number of workers of a run. Connect to the cluster if there is one.

    Args:
        workspace: the workspace with the database.
        engine: the cluster; None for this machine.
        workers: the number that the user asked for.
        trials: budget of trials.

    Returns:
        The number and its reason.

    Raises:
        UsageError: the cluster does not answer, or cannot use this database.
    """
    if engine is not None:
        engine.connect(one_machine=isinstance(workspace.database, SqliteFile))
    if workers is not None:
        return WorkerCount(count=workers, reason="--workers")
    return default_workers(trials) if engine is None else engine.default_workers(trials)


def check_workspace(file: StudyFile, workspace: Workspace) -> None:
    """Raise an error if the study cannot run in a workspace. Download and unpack the data set if necessary.

    Args:
        file: the study file.
        workspace: the device, the database and the data.

    Raises:
        UsageError: the device, the database or the data cannot be used.
    """
    if not DEVICE.fullmatch(workspace.device):
        raise ConfigError(
            f"the device must be auto, cpu, cuda or cuda:N, but got {show(workspace.device)}",
            hint="--device auto uses a GPU if there is one.",
        )
    workspace.check()
    if file.data.dataset in DATASET_IMAGES:
        prepare(file.data.dataset, workspace.data)


def run_study(
    study: str | Path,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    storage: str | None = None,
    runs: Path | str = DEFAULT_RUNS,
    data: Path | str | None = None,
    device: str = "auto",
) -> optuna.Study:
    """Run the search of a study file and return its Optuna study. The same call again continues the search.

    Args:
        study: a study file, or the name of a stored study.
        trials: budget of trials; None for the budget in the study file.
        epochs: budget of epochs; None for the budget in the study file.
        seconds: budget of time, in seconds; None for the budget in the study file.
        workers: number of worker processes on this machine; None to choose by cores, memory and budget.
        storage: URL of the database; None for `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        runs: the folder of runs.
        data: the folder of the data set; None to look for it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The study.

    Raises:
        HpsearchError: the search failed. The error says what went wrong and what to do.

    Example:
        The study file `stripes.toml` lies in this folder.

        >>> import hpsearch
        >>> study = hpsearch.run_study("stripes.toml", trials=1, workers=1, device="cpu")
        >>> study.best_trial.params["epochs"]
        3
    """
    workspace = Workspace(storage=storage, runs=Path(runs), data=None if data is None else Path(data), device=device)
    search = prepare_search(
        find_study_file(str(study), workspace), workspace, trials=trials, epochs=epochs, seconds=seconds, workers=workers
    )
    for _ in search.run():
        pass
    return search.study


def add_trial(search: Search, changes: Mapping[str, Scalar], *, base: int | None) -> tuple[int, Lease]:
    """Queue a new trial that has the values of a stored trial with some changes.

    Args:
        search: the search, ready to run.
        changes: new values. Each key is the name of a parameter (`sgd.lr`) or of its option (`lr`).
        base: number of the stored trial; None for the best trial, or the defaults if no trial is complete.

    Returns:
        The number of the new trial, and a lock. Other workers cannot take the trial until the lock is released.

    Raises:
        ConfigError: the space does not allow a change.
        StudyNotFoundError: there is no such trial.
    """
    if base is not None:
        start = read_trial(search.study, base).params
    else:
        ranked = rank(read_trials(search.study))
        start = ranked[0].params if ranked else {}
    point = searched_values(search.file, search.file.space.complete(changes, start=start))
    with search.workspace.locks.hold(claim_lock(get_study_id(search.study))):
        search.study.enqueue_trial(point, user_attrs={TrialKey.ORIGIN: BY_HAND})
        trial = [trial for trial in search.study.get_trials(deepcopy=False) if trial.user_attrs.get(TrialKey.ORIGIN) == BY_HAND][-1]
        lease = search.workspace.locks.acquire(manual_lock(get_trial_id(trial)))
    assert lease is not None, "no other process knows the new trial"
    return trial.number, lease
