"""A study that is ready to be searched, and the watch over its workers until they are done."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from hpsearch.config.sections import Budget
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import LeaseLostError
from hpsearch.search.budget import budget_allows_trial
from hpsearch.search.claim import end_hung, requeue_interrupted
from hpsearch.search.deletion import report_deletion
from hpsearch.search.ray_pool import RayEngine, RayWorkerPool
from hpsearch.search.study_monitor import Progress, StudyMonitor
from hpsearch.search.worker_pool import Watchdog, WorkerCount, WorkerPool
from hpsearch.storage.database import STORAGE_VARIABLE, Store
from hpsearch.storage.locks import claim_lock
from hpsearch.storage.records import read_study, write_run_seconds
from hpsearch.storage.workspace import Workspace

SNAPSHOT_SECONDS = 1.0
"""Between two looks at the stored trials; a look costs ten milliseconds of a core."""
WORKER_COMMAND = (sys.executable, "-m", "hpsearch", "worker")
SAVE_SECONDS = 10.0
"""Between two notes of the time spent: so much of it is forgotten when everything is killed at once."""
LEFT_RUNNING = (
    "the database is away, or another program has locked it: trials that are interrupted now go back into the queue at the next run"
)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
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
class RunContext:
    """What a run elsewhere, which keeps the time, leaves to this machine.

    Attributes:
        run: id of the run.
        elapsed: seconds that it had lasted when it began here.
        worker: the beginning of the names of workers here; nobody else's.
        command: of a worker.
    """

    run: str
    elapsed: float
    worker: str
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A study that is ready to be searched: everything was checked, and it stands in the storage.

    Attributes:
        engine: the cluster that the workers run on; this machine by default.
        earlier: trials that it had before; none for a new one.
        changed: what the study file says otherwise than at the last run, where that may change.
        requeued: numbers of interrupted trials that go on.
        retried: numbers of failed trials that are tried again.
    """

    file: StudyFile
    workspace: Workspace
    store: Store
    study: optuna.Study
    budget: Budget
    workers: WorkerCount
    earlier: int
    changed: tuple[str, ...]
    requeued: tuple[int, ...]
    retried: tuple[int, ...]
    engine: RayEngine | None = None

    def run(
        self, *, only_trial: int | None = None, stop_requested: Callable[[], bool] = lambda: False, context: RunContext | None = None
    ) -> Generator[Snapshot, None, None]:
        """Start the workers and yield a look at the study every second until they are done.

        Closing the generator stops the workers in good order: running trials go back to the queue.

        Args:
            only: the one trial to train.
            stopping: whether the caller is about to close the generator; then the next look comes at once.
            part: the run elsewhere that this is a part of.

        Raises:
            HpsearchError: a worker gave up.
            StudyNotFoundError: the study was deleted meanwhile.
        """
        with report_deletion(self.study, self.store, self.workspace.paths.study(self.file.name)):
            yield from self._run(only_trial, stop_requested, context)

    def _run(
        self, only_trial: int | None, stop_requested: Callable[[], bool], context: RunContext | None
    ) -> Generator[Snapshot, None, None]:
        run = context.run if context else uuid.uuid4().hex[:8]
        started = time.monotonic() - (context.elapsed if context else 0.0)
        self.workspace.retry_policy.stop_requested = stop_requested
        monitor = StudyMonitor(self.store, self.study)
        pool = self._worker_pool(run, started, only_trial, monitor, context)
        stops = read_study(self.study).stop_requests
        hung = Watchdog(self.budget.trial_time)
        saved = looked = time.monotonic()
        deaths = 0
        stopped = False
        try:
            pool.start()
            for _ in pool.watch():
                now = time.monotonic()
                if pool.deaths > deaths:
                    deaths = pool.deaths
                    self._requeue()
                if now - saved >= SAVE_SECONDS and context is None:
                    saved = now
                    with self.store.skip_if_unavailable():
                        write_run_seconds(self.study, run, now - started)
                if now - looked >= SNAPSHOT_SECONDS or stop_requested():
                    looked = now
                    self.store.database.require_exists()
                    progress = monitor.read_progress()
                    for number, worker in hung.overdue(progress.running, now):
                        self._end_hung(pool, number, worker)
                    yield Snapshot(progress=progress, elapsed=now - started, deaths=pool.deaths, stopped=False)
                    if read_study(self.study).stop_requests > stops:
                        stopped = True
                        break
        finally:
            try:
                pool.stop()
            finally:  # also when a second Ctrl-C ends the workers at once
                with contextlib.suppress(KeyError), self.store.skip_if_unavailable(warning=LEFT_RUNNING):
                    if context is None:
                        write_run_seconds(self.study, run, time.monotonic() - started)
                    self._requeue()
        # The workers may all have left before this process looked.
        stopped = stopped or (read_study(self.study).stop_requests > stops and not self.is_spent)
        yield Snapshot(progress=monitor.read_progress(), elapsed=time.monotonic() - started, deaths=pool.deaths, stopped=stopped)

    @property
    def is_spent(self) -> bool:
        """Whether there is nothing left to do: no trial waits or runs, and the budget allows no more."""
        trials = self.study.get_trials(deepcopy=False)
        return all(trial.state.is_finished() for trial in trials) and not budget_allows_trial(trials, trials=self.budget.trials)

    def _requeue(self) -> None:
        """Put the trials of dead workers back into the queue at once, for whoever is free."""
        with contextlib.suppress(LeaseLostError), self.workspace.locks.hold(self._claim_lock()):  # else the next claim does it
            requeue_interrupted(self.store, self.study, self.workspace.locks)

    def _end_hung(self, pool: WorkerPool | RayWorkerPool, number: int, worker: str) -> None:
        if pool.kill_worker(worker):
            with contextlib.suppress(LeaseLostError), self.workspace.locks.hold(self._claim_lock()):
                end_hung(self.store, self.study, self.workspace.locks, number)

    def _claim_lock(self) -> str:
        return claim_lock(self.store.storage.get_study_id_from_name(self.file.name))

    def _worker_pool(
        self, run: str, started: float, only_trial: int | None, monitor: StudyMonitor, context: RunContext | None
    ) -> WorkerPool | RayWorkerPool:
        count = 1 if only_trial is not None else self.workers.count
        if self.engine is not None and context is None:
            return RayWorkerPool(engine=self.engine, order=self._order(run, only_trial), count=count)
        options: dict[str, Any] = {
            "runs": self.workspace.runs,
            "data": self.workspace.data,
            "device": self.workspace.device,
            "trials": self.budget.trials,
            "time": None if self.budget.time is None else f"{self.budget.time}s",
            "only": only_trial,
            "run": run,
            "run-started": started,
            "beside": self.workspace.component_folder,
        }
        command = [*(context.command if context else WORKER_COMMAND), self.file.name, "--supervised"]
        command += [argument for key, value in options.items() if value is not None for argument in (f"--{key}", str(value))]
        return WorkerPool(
            command=[*command, "--name"],
            # A URL may hold a password, and a process list is read by everybody.
            environment={STORAGE_VARIABLE: self.store.url},
            logs=self.workspace.paths.study(self.file.name).logs,
            count=count,
            prefix=context.worker if context else f"worker-{run}",
            has_claimed=monitor.has_claimed,
        )

    def _order(self, run: str, only_trial: int | None) -> dict[str, Any]:
        """What a node needs to know, as plain data."""
        here = self.file.path.parent
        return {
            "study": self.file.name,
            "storage": self.store.url,
            "runs": str(self.workspace.runs.absolute()),
            "data": None if self.workspace.data is None else str(self.workspace.data.absolute()),
            # A worker that was given no part of a GPU takes none: nobody would count it.
            "device": "cpu" if self.engine and not self.engine.gpus and self.workspace.device == "auto" else self.workspace.device,
            "folder": str(Path.cwd()),
            "files": {os.path.relpath(file.path, here): file.path.read_bytes() for file in self.file.component_files},
            "trials": self.budget.trials,
            "time": self.budget.time,
            "only": only_trial,
            "run": run,
            "command": list(WORKER_COMMAND[1:]),
        }
