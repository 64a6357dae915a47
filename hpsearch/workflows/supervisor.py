"""Run a prepared search: start its workers and watch them until they are done."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from hpsearch.config.sections import Budget
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import LeaseLostError, StudyNotFoundError
from hpsearch.search.budget import budget_allows_trial, gains_little
from hpsearch.search.claim import end_hung, record_death, requeue_interrupted
from hpsearch.search.deletion import LoadedStudy
from hpsearch.search.ray_pool import RayEngine, RayWorkerPool
from hpsearch.search.study_monitor import Progress, StudyMonitor
from hpsearch.search.worker_order import NodeOrder, WorkerOrder
from hpsearch.search.worker_pool import DeadWorker, Watchdog, WorkerCount, WorkerPool
from hpsearch.storage.database import STORAGE_VARIABLE, Store
from hpsearch.storage.locks import claim_lock
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.records import is_own_trial, read_study, write_run_seconds
from hpsearch.storage.workspace import Workspace

SNAPSHOT_SECONDS = 1.0
"""Seconds between two snapshots of the study. A snapshot takes ten milliseconds of a core."""
WORKER_COMMAND = (sys.executable, "-P", "-m", "hpsearch", "worker")
"""Starts a worker. Without `-P` a file of the working folder, such as `random.py`, would hide the module of that name."""
SAVE_SECONDS = 10.0
"""Seconds between two writes of the time spent. No more than this time is lost if all processes are killed together."""
LEFT_RUNNING = "the database is away, or another program has locked it: the next run requeues the trials that are interrupted now"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a run at one moment.

    Attributes:
        progress: progress of the study.
        elapsed: seconds of this run so far.
        deaths: number of workers that died and were replaced.
        stopped: whether `hpsearch stop` asked the run to stop.
    """

    progress: Progress
    elapsed: float
    deaths: int
    stopped: bool


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search that is ready to run. Everything was checked, and the study is stored.

    Attributes:
        identity: the identity of the study.
        workers: number of workers.
        earlier: number of trials that the study had before this run.
        changed: one line for each change of the study file since the last run.
        requeued: numbers of interrupted trials that continue.
        retried: numbers of failed trials that are tried again.
        engine: the cluster of the workers; None for this machine.
    """

    file: StudyFile
    workspace: Workspace
    store: Store
    study: optuna.Study
    identity: str
    budget: Budget
    workers: WorkerCount
    earlier: int = 0
    changed: tuple[str, ...] = ()
    requeued: tuple[int, ...] = ()
    retried: tuple[int, ...] = ()
    engine: RayEngine | None = None

    def run(
        self, *, only_trial: int | None = None, stop_requested: Callable[[], bool] = lambda: False, order: NodeOrder | None = None
    ) -> Generator[Snapshot, None, None]:
        """Start the workers and watch them until they are done.

        Closing the generator stops the workers, and their trials return to the queue.

        Args:
            only_trial: the only trial to train; None for all trials.
            stop_requested: returns whether the caller wants to close the generator. If so, the next snapshot comes at once.
            order: the order of a run on another machine. With an order, this call supervises one worker of that run.

        Yields:
            A snapshot every second.

        Raises:
            HpsearchError: a worker gave up.
            StudyNotFoundError: the study was deleted.
        """
        with self.loaded.report_deletion():
            yield from self._run(only_trial, stop_requested, order)

    def _run(self, only_trial: int | None, stop_requested: Callable[[], bool], order: NodeOrder | None) -> Generator[Snapshot, None, None]:
        run = order.run if order else uuid.uuid4().hex[:8]
        started = time.monotonic() - (read_study(self.study).run_seconds.get(run, 0.0) if order else 0.0)
        self.workspace.retry_policy.stop_requested = stop_requested
        monitor = StudyMonitor(self.store, self.study)
        pool = self._worker_pool(run, started, only_trial, monitor, order)
        watchdog = Watchdog(self.budget.trial_time)
        stops = read_study(self.study).stop_requests
        stopped = False
        deaths = 0
        last_saved = last_snapshot = time.monotonic()
        try:
            pool.start()
            for _ in pool.watch():
                now = time.monotonic()
                if pool.deaths > deaths:
                    dead, deaths = pool.dead[deaths:], pool.deaths
                    self._requeue(dead)
                if now - last_saved >= SAVE_SECONDS and order is None:
                    last_saved = now
                    with self.store.skip_if_unavailable():
                        self._write_seconds(run, now - started)
                if now - last_snapshot >= SNAPSHOT_SECONDS or stop_requested():
                    last_snapshot = now
                    self.store.database.require_exists()
                    self.loaded.require_exists()
                    progress = monitor.read_progress()
                    for number, worker in watchdog.overdue(progress.running, now):
                        self._end_hung(pool, number, worker)
                    yield Snapshot(progress=progress, elapsed=now - started, deaths=pool.deaths, stopped=False)
                    if read_study(self.study).stop_requests > stops:
                        stopped = True
                        break
        finally:
            try:
                pool.stop()
            finally:  # also after a second Ctrl-C, which kills the workers
                with contextlib.suppress(KeyError, StudyNotFoundError), self.store.skip_if_unavailable(warning=LEFT_RUNNING):
                    if order is None:
                        self._write_seconds(run, time.monotonic() - started)
                    self._requeue()
        # All workers may have seen the request and ended before this process has seen it.
        stopped = stopped or (read_study(self.study).stop_requests > stops and not self.is_spent)
        yield Snapshot(progress=monitor.read_progress(), elapsed=time.monotonic() - started, deaths=pool.deaths, stopped=stopped)

    @property
    def loaded(self) -> LoadedStudy:
        """The study as it was created or continued."""
        paths = self.workspace.paths.study(self.file.name)
        return LoadedStudy(study=self.study, store=self.store, paths=paths, identity=self.identity)

    @property
    def is_spent(self) -> bool:
        """Whether no trial waits or runs, and the budget allows no new trial."""
        trials = self.study.get_trials(deepcopy=False)
        ended = all(trial.state.is_finished() or not is_own_trial(trial) for trial in trials)
        return ended and not budget_allows_trial(trials, self.budget, self.file.data.validation_images, self.file.space)

    @property
    def has_converged(self) -> bool:
        """Whether `stop = "auto"` has ended the search."""
        trials = filter(is_own_trial, self.study.get_trials(deepcopy=False))
        return self.budget.stop == "auto" and gains_little(trials, self.file.data.validation_images)

    def _write_seconds(self, run: str, seconds: float) -> None:
        self.loaded.require_exists()
        write_run_seconds(self.study, run, seconds)

    def _requeue(self, dead: Sequence[DeadWorker] = ()) -> None:
        """Requeue the trials of dead workers at once. If the lock is lost, the next claim requeues these trials."""
        with contextlib.suppress(LeaseLostError), self.workspace.locks.hold(claim_lock(self._study_id())):
            for worker in dead:
                record_death(self.store, self.study, worker)
            requeue_interrupted(self.store, self.study, self.workspace.locks)

    def _end_hung(self, pool: WorkerPool | RayWorkerPool, number: int, worker: str) -> None:
        if pool.kill_worker(worker):
            with contextlib.suppress(LeaseLostError), self.workspace.locks.hold(claim_lock(self._study_id())):
                end_hung(self.store, self.study, self.workspace.locks, number)

    def _study_id(self) -> int:
        """Return the id of the study. If the study was deleted, raise an error."""
        self.loaded.require_exists()
        return get_study_id(self.study)

    def _worker_pool(
        self, run: str, started: float, only_trial: int | None, monitor: StudyMonitor, order: NodeOrder | None = None
    ) -> WorkerPool | RayWorkerPool:
        count = 1 if only_trial is not None else self.workers.count
        if self.engine is not None and order is None:
            first = self._node_order(run, only_trial, self.engine)
            orders = [first.model_copy(update={"worker": f"worker-{run}-{number}"}) for number in range(1, count + 1)]
            return RayWorkerPool(engine=self.engine, orders=orders)
        interpreter_and_arguments = (sys.executable, *order.command) if order else WORKER_COMMAND
        template = WorkerOrder(
            study=self.file.name,
            identity=self.identity,
            worker="",
            run=run,
            run_started=started,
            runs=self.workspace.runs,
            data=self.workspace.data,
            device=self.workspace.device,
            trials=self.budget.trials,
            epochs=self.budget.epochs,
            time=self.budget.time,
            only_trial=only_trial,
            component_folder=self.workspace.component_folder,
        )

        def command(worker: str, supervisor: int) -> list[str]:
            told = template.model_copy(update={"worker": worker, "supervisor": supervisor}).model_dump_json(exclude_none=True)
            return [*interpreter_and_arguments, self.file.name, "--order", told]

        return WorkerPool(
            command=command,
            # Every user can read the command line of a process, and the URL may hold a password.
            environment={STORAGE_VARIABLE: self.store.url},
            logs=self.workspace.paths.study(self.file.name).logs,
            count=count,
            prefix=order.worker if order else f"worker-{run}",
            has_claimed=monitor.has_claimed,
        )

    def _node_order(self, run: str, only_trial: int | None, engine: RayEngine) -> NodeOrder:
        study_folder, data = self.file.path.parent, self.workspace.data
        return NodeOrder(
            study=self.file.name,
            identity=self.identity,
            worker="",
            run=run,
            runs=self.workspace.runs.absolute(),
            data=None if data is None else data.absolute(),
            # With `auto`, a worker without a share of a GPU uses no GPU, because Ray would not count that use.
            device="cpu" if not engine.gpus and self.workspace.device == "auto" else self.workspace.device,
            trials=self.budget.trials,
            epochs=self.budget.epochs,
            time=self.budget.time,
            only_trial=only_trial,
            storage=self.store.url,
            folder=Path.cwd(),
            component_files={os.path.relpath(file.path, study_folder): file.path.read_bytes() for file in self.file.component_files},
            command=WORKER_COMMAND[1:],
        )
