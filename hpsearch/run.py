"""The whole search: check, create or continue the study, start the workers, watch them."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from hpsearch.components import DATASET_IMAGES, Scalar, show
from hpsearch.continuation import create_or_continue, queue_failed_again, searched_values
from hpsearch.database import (
    OTHER_PLACE,
    STORAGE_VARIABLE,
    Store,
    check_database,
    database_of,
    open_store,
    storage_url,
)
from hpsearch.errors import ConfigError, HpsearchError, StorageError, UsageError
from hpsearch.linked import is_linked, linked_file, read_plan, stored_file
from hpsearch.paths import DEFAULT_RUNS, RunPaths, lock_folder
from hpsearch.search.budget import may_start
from hpsearch.search.claim import study_gone
from hpsearch.search.launch import Crew, WorkerCount, default_workers
from hpsearch.search.lease import CREATION_LOCK, FileLocks, Lease, claim_lock, hand_lock
from hpsearch.search.lookout import Lookout, Progress
from hpsearch.search.recovery import end_hung, requeue_interrupted
from hpsearch.search.watchdog import Watchdog
from hpsearch.sections import Budget
from hpsearch.storage import BY_HAND, TrialKey, one_trial, read_trials, stop_requests, write_spent
from hpsearch.study_file import StudyFile, load_study_file
from hpsearch.training.files import prepare

LOOK_SECONDS = 1.0
"""Between two looks at the stored trials; a look costs ten milliseconds of a core."""
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
WORKER_COMMAND = (sys.executable, "-m", "hpsearch", "worker")
SAVE_SECONDS = 10.0
"""Between two notes of the time spent: so much of it is forgotten when everything is killed at once."""
LEFT_RUNNING = "another program has locked the database: trials that are interrupted now go back into the queue at the next run"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a study lives: its storage, its folder of runs, its data.

    Attributes:
        storage: a URL; by default `$OPTUNA_STORAGE`, or a SQLite file in `runs`.
        data: the folder of the data set; looked for by default.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    storage: str | None = None
    runs: Path = DEFAULT_RUNS
    data: Path | None = None
    device: str = "auto"

    @property
    def paths(self) -> RunPaths:
        """What lies where."""
        return RunPaths(self.runs)

    @property
    def url(self) -> str:
        """The storage's URL, with its password if it has one."""
        return storage_url(self.storage, self.paths)

    @property
    def locks(self) -> FileLocks:
        """The locks beside the storage."""
        return FileLocks(lock_folder(database_of(self.url)))

    def open(self, *, create: bool = False, lean: bool = False) -> Store:
        """The storage; lean for a process that lives as long as a search."""
        return open_store(self.url, create=create, lean=lean)

    def make(self) -> Store:
        """The storage; where there is none it is made, by one process at a time."""
        locks = self.locks
        if not locks.folder.exists():  # else somebody may just be making the database
            check_database(self.url, create=True)
        try:
            with locks.hold(CREATION_LOCK):
                return self.open(create=True)
        except OSError as error:
            raise StorageError(f"cannot write beside the database {database_of(self.url)}: {error.strerror}", hint=OTHER_PLACE) from error
        finally:
            locks.tidy()


@dataclass(frozen=True, kw_only=True)
class Look:
    """The study at one moment.

    Attributes:
        progress: its trials.
        elapsed: seconds of this run so far.
        deaths: workers that died and were replaced.
        stopped: the run was asked to stop, by `hpsearch stop`.
    """

    progress: Progress
    elapsed: float
    deaths: int
    stopped: bool


@dataclass(frozen=True, kw_only=True)
class Search:
    """A study that is ready to be searched: everything was checked, and it stands in the storage.

    Attributes:
        earlier: trials that it had before; none for a new one.
        changed: what the study file says otherwise than at the last run, where that may change.
        requeued: numbers of interrupted trials that go on.
        retried: numbers of failed trials that are tried again.
    """

    file: StudyFile
    place: Place
    store: Store
    study: optuna.Study
    budget: Budget
    workers: WorkerCount
    earlier: int
    changed: tuple[str, ...]
    requeued: tuple[int, ...]
    retried: tuple[int, ...]

    def run(self, *, only: int | None = None, stopping: Callable[[], bool] = lambda: False) -> Generator[Look, None, None]:
        """Start the workers and yield a look at the study every second until they are done.

        Closing the generator stops the workers in good order: running trials go back to the queue.

        Args:
            only: the one trial to train.
            stopping: whether the caller is about to close the generator; then the next look comes at once.

        Raises:
            HpsearchError: a worker gave up.
        """
        run = uuid.uuid4().hex[:8]
        started = time.monotonic()
        self.store.wait.hurried = stopping
        lookout = Lookout(self.store, self.study)
        crew = self._crew(run, started, only, lookout)
        stops = stop_requests(self.study)
        hung = Watchdog(self.budget.trial_time)
        saved = looked = started
        deaths = 0
        stopped = False
        try:
            crew.start()
            for _ in crew.watch():
                now = time.monotonic()
                if crew.deaths > deaths:
                    deaths = crew.deaths
                    self._requeue()
                if now - saved >= SAVE_SECONDS:
                    saved = now
                    with self.store.unless_locked():
                        write_spent(self.study, run, now - started)
                if now - looked >= LOOK_SECONDS or stopping():
                    looked = now
                    self.store.require_database()
                    progress = lookout.look()
                    for number, worker in hung.look(progress.running, now):
                        self._end_hung(crew, number, worker)
                    yield Look(progress=progress, elapsed=now - started, deaths=crew.deaths, stopped=False)
                    if stop_requests(self.study) > stops:
                        stopped = True
                        break
        except KeyError as error:  # what Optuna's storage raises for a study that is no more
            if self.file.name in self.store.names():
                raise
            raise study_gone(self.file.name, self.store, self.place.paths.study(self.file.name)) from error
        finally:
            try:
                crew.stop()
            finally:  # also when a second Ctrl-C ends the workers at once
                with contextlib.suppress(KeyError), self.store.unless_locked(say=LEFT_RUNNING):
                    write_spent(self.study, run, time.monotonic() - started)
                    self._requeue()
        yield Look(progress=lookout.look(), elapsed=time.monotonic() - started, deaths=crew.deaths, stopped=stopped)

    @property
    def is_spent(self) -> bool:
        """Whether there is nothing left to do: no trial waits or runs, and the budget allows no more."""
        trials = self.study.get_trials(deepcopy=False)
        return all(trial.state.is_finished() for trial in trials) and not may_start(self.study, trials=self.budget.trials)

    def _requeue(self) -> None:
        """Put the trials of dead workers back into the queue at once, for whoever is free."""
        with self.place.locks.hold(self._claim_lock()):
            requeue_interrupted(self.store, self.study, self.place.locks)

    def _end_hung(self, crew: Crew, number: int, worker: str) -> None:
        if crew.kill_one(worker):
            with self.place.locks.hold(self._claim_lock()):
                end_hung(self.store, self.study, self.place.locks, number)

    def _claim_lock(self) -> str:
        return claim_lock(self.store.storage.get_study_id_from_name(self.file.name))

    def _crew(self, run: str, started: float, only: int | None, lookout: Lookout) -> Crew:
        options: dict[str, Any] = {
            "runs": self.place.runs,
            "data": self.place.data,
            "device": self.place.device,
            "trials": self.budget.trials,
            "time": None if self.budget.time is None else f"{self.budget.time}s",
            "only": only,
            "run": run,
            "run-started": started,
        }
        command = [*WORKER_COMMAND, self.file.name, "--supervised"]
        command += [part for key, value in options.items() if value is not None for part in (f"--{key}", str(value))]
        return Crew(
            command=[*command, "--name"],
            # A URL may hold a password, and a process list is read by everybody.
            environment={STORAGE_VARIABLE: self.store.url},
            logs=self.place.paths.study(self.file.name).logs,
            count=1 if only is not None else self.workers.count,
            prefix=f"worker-{run}",
            took_up=lookout.took_up,
        )


def find_study_file(study: str, place: Place) -> StudyFile:
    """The study file that STUDY means: a file, or the one that a stored study of that name was last run with.

    Raises:
        StudyFileError, ComponentError: the file makes no sense.
        StudyNotFoundError: no such study.
    """
    if study.endswith(".toml") or "/" in study:
        return load_study_file(Path(study))
    store = place.open()
    try:
        stored = store.load(study)
        file = stored_file(stored)
        return linked_file(file, read_plan(stored, file)) if is_linked(stored) else file
    finally:
        store.dispose()


def study_name(study: str) -> str:
    """The name of the study that STUDY means: a file's, or the name itself."""
    return load_study_file(Path(study)).name if study.endswith(".toml") or "/" in study else study


def prepare_search(
    file: StudyFile,
    place: Place,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
) -> Search:
    """Check everything, then create the study or continue it.

    Args:
        trials, seconds: override the budget.
        retry_failed: queue the failed trials again, each as a new trial on top of the budget.

    Raises:
        UsageError: the data, the storage or the study cannot be used; nothing was written.
        NotComparableError: the file would make trials that cannot be compared with those stored.
    """
    base, _, kind = file.name.partition(".")
    if kind:
        raise UsageError(f"'{file.name}' belongs to the study '{base}'", hint=f"`hpsearch {kind} {base}` goes on with it.")
    check_place(file, place)
    budget = file.budget.model_copy(update={k: v for k, v in (("trials", trials), ("time", seconds)) if v is not None})
    locks = place.locks
    try:
        # Several launchers on an empty store would trip over one another's tables.
        with locks.hold(CREATION_LOCK):
            store = place.open(create=True)
            study, earlier, changed = create_or_continue(store, file, budget)
    except OSError as error:
        raise StorageError(f"cannot write beside the database {database_of(place.url)}: {error.strerror}", hint=OTHER_PLACE) from error
    except HpsearchError:
        locks.tidy()
        raise
    with locks.hold(claim_lock(store.storage.get_study_id_from_name(file.name))):
        requeued = requeue_interrupted(store, study, locks)
        retried = queue_failed_again(study) if retry_failed else []
    count = default_workers(budget.trials) if workers is None else WorkerCount(count=workers, reason="--workers")
    return Search(
        file=file,
        place=place,
        store=store,
        study=study,
        budget=budget,
        workers=count,
        earlier=earlier,
        changed=changed,
        requeued=tuple(requeued),
        retried=tuple(retried),
    )


def check_place(file: StudyFile, place: Place) -> None:
    """Refuse a place where the study cannot be run, before anything is written; the data set is unpacked.

    Raises:
        UsageError: the device, the storage or the data cannot be used.
    """
    if not DEVICE.fullmatch(place.device):
        raise ConfigError(
            f"the device must be auto, cpu, cuda or cuda:N, but got {show(place.device)}",
            hint="--device auto takes a GPU where there is one.",
        )
    if not place.locks.folder.exists():  # else somebody may just be making the database
        check_database(place.url, create=True)
    if file.data.dataset in DATASET_IMAGES:
        prepare(file.data.dataset, place.data, allow_download=True)


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
    """
    place = Place(storage=storage, runs=Path(runs), data=None if data is None else Path(data), device=device)
    search = prepare_search(find_study_file(str(study), place), place, trials=trials, seconds=seconds, workers=workers)
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
        start = one_trial(search.study, base).params
    else:
        complete = [
            (trial.value, trial.params) for trial in read_trials(search.study) if trial.state == "complete" and trial.value is not None
        ]
        start = max(complete, key=lambda pair: pair[0])[1] if complete else {}
    point = searched_values(search.file, search.file.space.complete(changes, start=start))
    with search.place.locks.hold(claim_lock(search.store.storage.get_study_id_from_name(search.file.name))):
        search.study.enqueue_trial(point, user_attrs={TrialKey.ORIGIN: BY_HAND})
        queued = [trial for trial in search.study.get_trials(deepcopy=False) if trial.user_attrs.get(TrialKey.ORIGIN) == BY_HAND]
        # Held until this process ends, or lets go: workers of other runs leave the trial to it.
        lease = search.place.locks.acquire(hand_lock(queued[-1]._trial_id))
    assert lease is not None, "the trial is new, and its lock too"
    return queued[-1].number, lease
