"""The whole search: check, create or continue the study, start the workers, watch them."""

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
from hpsearch.storage.optuna_internals import get_trial_id
from hpsearch.storage.records import BY_HAND, TrialKey, read_trial, read_trials
from hpsearch.storage.sqlite import SqliteFile
from hpsearch.storage.workspace import Workspace
from hpsearch.training.data.files import prepare
from hpsearch.workflows.repeat_study import follow_up_file, is_follow_up, read_plan, stored_file
from hpsearch.workflows.resume import create_or_continue, queue_failed_again, searched_values
from hpsearch.workflows.supervisor import Search

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def find_study_file(study: str, workspace: Workspace) -> StudyFile:
    """The study file that STUDY means: a file, or the one that a stored study of that name was last run with.

    Raises:
        StudyFileError, ComponentError: the file makes no sense.
        StudyNotFoundError: no such study.
    """
    if study.endswith(".toml") or "/" in study:
        return load_study_file(Path(study))
    store = workspace.open()
    try:
        stored = store.load(study)
        file = stored_file(stored, workspace.component_folder)
        return follow_up_file(file, read_plan(stored, file)) if is_follow_up(stored) else file
    finally:
        store.dispose()


def study_name(study: str) -> str:
    """The name of the study that STUDY means: a file's, or the name itself."""
    return load_study_file(Path(study)).name if study.endswith(".toml") or "/" in study else study


def prepare_search(
    file: StudyFile,
    workspace: Workspace,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    engine: RayEngine | None = None,
) -> Search:
    """Check everything, then create the study or continue it.

    Args:
        trials, seconds: override the budget.
        retry_failed: queue the failed trials again, each as a new trial on top of the budget.
        engine: the cluster that the workers run on; this machine by default.

    Raises:
        UsageError: the data, the storage or the study cannot be used; nothing was written.
        NotComparableError: the file would make trials that cannot be compared with those stored.
    """
    base, _, kind = file.name.partition(".")
    if kind:
        raise UsageError(f"'{file.name}' belongs to the study '{base}'", hint=f"`hpsearch {kind} {base}` goes on with it.")
    check_workspace(file, workspace)
    budget = file.budget.model_copy(update={k: v for k, v in (("trials", trials), ("time", seconds)) if v is not None})
    count = count_workers(workspace, engine, workers, budget.trials)
    locks = workspace.locks
    try:
        # Several launchers on an empty store would trip over one another's tables.
        with workspace.creation_lock():
            store = workspace.open(create=True)
            study, earlier, changed = create_or_continue(store, file, budget)
    except HpsearchError:
        locks.clean_up()
        raise
    with locks.hold(claim_lock(store.storage.get_study_id_from_name(file.name))):
        requeued = requeue_interrupted(store, study, locks)
        retried = queue_failed_again(study) if retry_failed else []
    return Search(
        file=file,
        workspace=workspace,
        store=store,
        study=study,
        budget=budget,
        workers=count,
        earlier=earlier,
        changed=changed,
        requeued=tuple(requeued),
        retried=tuple(retried),
        engine=engine,
    )


def count_workers(workspace: Workspace, engine: RayEngine | None, workers: int | None, trials: int) -> WorkerCount:
    """How many workers a run has, and why; connects to the cluster if there is one.

    Raises:
        UsageError: the cluster cannot be reached, or not be used with this storage.
    """
    if engine is not None:
        engine.connect(one_machine=isinstance(workspace.database, SqliteFile))
    if workers is not None:
        return WorkerCount(count=workers, reason="--workers")
    return default_workers(trials) if engine is None else engine.default_workers(trials)


def check_workspace(file: StudyFile, workspace: Workspace) -> None:
    """Refuse a place where the study cannot be run, before anything is written; the data set is unpacked.

    Raises:
        UsageError: the device, the storage or the data cannot be used.
    """
    if not DEVICE.fullmatch(workspace.device):
        raise ConfigError(
            f"the device must be auto, cpu, cuda or cuda:N, but got {show(workspace.device)}",
            hint="--device auto takes a GPU where there is one.",
        )
    workspace.check()
    if file.data.dataset in DATASET_IMAGES:
        prepare(file.data.dataset, workspace.data, allow_download=True)


def run_study(
    study: str | Path,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    storage: str | None = None,
    runs: Path | str = DEFAULT_RUNS,
    data: Path | str | None = None,
    device: str = "auto",
) -> optuna.Study:
    """Search what a study file asks for and return the Optuna study; the same call again continues it.

    Args:
        study: a study file, or the name of a stored study.
        trials, seconds: override the file's budget.
        workers: processes on this machine; by default as many as cores, memory and budget make sense of.
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        data: the folder of the data set; looked for by default.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        HpsearchError: what went wrong, and what to do.

    Example:
        The study file `stripes.toml` lies in this folder.

        >>> import hpsearch
        >>> study = hpsearch.run_study("stripes.toml", trials=1, workers=1, device="cpu")
        >>> study.best_trial.params["epochs"]
        3
    """
    workspace = Workspace(storage=storage, runs=Path(runs), data=None if data is None else Path(data), device=device)
    search = prepare_search(find_study_file(str(study), workspace), workspace, trials=trials, seconds=seconds, workers=workers)
    for _ in search.run():
        pass
    return search.study


def add_trial(search: Search, changes: Mapping[str, Scalar], *, base: int | None) -> tuple[int, Lease]:
    """Queue a trial by hand, a stored one but for some changes; returns its number and the lock that keeps others from it.

    Args:
        changes: by a parameter's name (`sgd.lr`) or its option's (`lr`).
        base: the trial to start from; the best so far by default, or the defaults where there is none.

    Raises:
        ConfigError: a change that the space does not allow.
        StudyNotFoundError: no such trial.
    """
    if base is not None:
        start = read_trial(search.study, base).params
    else:
        best = rank(read_trials(search.study))
        start = best[0].params if best else {}
    point = searched_values(search.file, search.file.space.complete(changes, start=start))
    with search.workspace.locks.hold(claim_lock(search.store.storage.get_study_id_from_name(search.file.name))):
        search.study.enqueue_trial(point, user_attrs={TrialKey.ORIGIN: BY_HAND})
        queued = [trial for trial in search.study.get_trials(deepcopy=False) if trial.user_attrs.get(TrialKey.ORIGIN) == BY_HAND]
        # Held until this process ends, or lets go: workers of other runs leave the trial to it.
        lease = search.workspace.locks.acquire(manual_lock(get_trial_id(queued[-1])))
    assert lease is not None, "the trial is new, and its lock too"
    return queued[-1].number, lease
