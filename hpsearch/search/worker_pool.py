"""Start worker processes on this machine, replace dead workers, and find trials that hang. This module does not load torch."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hpsearch.errors import StudyStoppedError, cause_of_death
from hpsearch.formatting import many
from hpsearch.search.resources import free_memory, usable_cores
from hpsearch.search.worker_link import WorkerLink, kill_session

if TYPE_CHECKING:
    from hpsearch.storage.records import TrialRow

log = logging.getLogger("hpsearch")

WORKER_ENVIRONMENT: Mapping[str, str] = {
    # Without these settings, glibc returns large blocks to the system at every step. That takes a third of the time.
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    # Two workers with one thread each train more than one worker with two threads. Threads that wait also use the processor.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

WORKER_MEMORY = 1_000_000_000
"""Bytes of memory planned for a worker, with torch, the images and a model of a few million parameters."""
TRIALS_PER_WORKER = 5
"""One worker is planned for this number of trials. A sampler learns little if many trials start before the first trials end."""
POLL_SECONDS = 0.2
STOP_SECONDS = 8.0
"""Seconds that workers get to requeue their trials. After this time they are killed."""
MAX_START_FAILURES = 3
"""The run stops after this number of failed starts in a row. In a failed start, a worker dies soon without a trial."""
MIN_LIFE = 10.0
"""A worker that dies within this number of seconds without a trial counts as a failed start."""
MAX_LOG = 16_000_000
"""Bytes after which a worker's log is cut. Its last part moves to `<name>.log.1`."""
KEPT_LOG = 1_000_000
"""Bytes of a log that are kept when it is cut."""
LEAVE_SECONDS = 8.0
"""Seconds that a worker that is done has to end. On a busy machine the end of Python alone takes some seconds."""
WATCHDOG_GRACE = 5.0
"""Seconds after `trial_time` in which the worker can still end the trial by itself."""


@dataclass(frozen=True, kw_only=True)
class WorkerCount:
    """The number of workers, and the reason for this number."""

    count: int
    reason: str

    @classmethod
    def smallest(cls, *limits: tuple[int, str]) -> WorkerCount:
        """Choose the smallest of several limits, but at least one worker.

        Args:
            limits: numbers of workers, each with its reason.

        Returns:
            The smallest limit.
        """
        count, reason = min(limits, key=lambda limit: limit[0])
        return cls(count=max(1, count), reason=reason)


def default_workers(trials: int) -> WorkerCount:
    """Choose the number of workers for this machine.

    Args:
        trials: budget of trials.

    Returns:
        The smallest of usable cores, free memory in GB, and a fifth of the trials.
    """
    cores, memory = usable_cores(), free_memory() // WORKER_MEMORY
    return WorkerCount.smallest(
        (cores, many(cores, "core")),
        (memory, f"{memory} GB of free memory, 1 GB a worker"),
        (trials // TRIALS_PER_WORKER, f"a fifth of {trials} trials"),
    )


@dataclass(frozen=True, kw_only=True)
class DeadWorker:
    """A worker process that died.

    Attributes:
        cause: the signal or the exit code.
    """

    name: str
    cause: str


@dataclass
class _Process:
    name: str
    process: subprocess.Popen[bytes]
    link: WorkerLink
    log_path: Path
    started: float
    done_since: float | None = None
    """When the supervisor read that the worker is done."""

    def kill(self) -> None:
        """Kill the worker and all processes that it has started, and close the connection. The worker may have ended before."""
        with suppress(psutil.NoSuchProcess):
            # A child process may have left the session of the worker.
            children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
            for each in children:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        kill_session(self.process.pid)
        self.process.wait()
        self.link.close()

    def cut_log(self) -> None:
        """Cut a log that has become too long. The worker appends to it, so it then continues at the beginning."""
        with suppress(OSError):
            if self.log_path.stat().st_size > MAX_LOG:
                with self.log_path.open("r+b") as log_file:
                    log_file.seek(-KEPT_LOG, os.SEEK_END)
                    self.log_path.with_name(f"{self.log_path.name}.1").write_bytes(log_file.read())
                    log_file.truncate(0)


@dataclass
class WorkerPool:
    """The worker processes of one run on this machine.

    Attributes:
        command: returns the command line of a worker. It takes the name of the worker, and the file descriptor of its connection.
        environment: environment variables of the workers, added to the variables of this process and to WORKER_ENVIRONMENT.
        logs: the folder of the log files, which are named `<name>.log`.
        count: number of workers.
        prefix: beginning of the workers' names.
        has_claimed: returns whether a worker ever claimed a trial. If it did, its death does not count as a failed start.
        dead: the workers that died and were replaced.
    """

    command: Callable[[str, int], Sequence[str]]
    environment: Mapping[str, str]
    logs: Path
    count: int
    prefix: str
    has_claimed: Callable[[str], bool]
    dead: list[DeadWorker] = field(default_factory=list)
    _running: list[_Process] = field(default_factory=list)
    _started: int = 0
    _start_failures: int = 0

    @property
    def deaths(self) -> int:
        """The number of workers that died and were replaced."""
        return len(self.dead)

    def start(self) -> None:
        """Start all workers."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for _ in range(self.count):
            self._start_one()

    def watch(self) -> Iterator[None]:
        """Replace workers that die, until all have ended.

        Yields:
            Nothing, several times a second.

        Raises:
            HpsearchError: a worker ended with an error. The message is the message of the worker.
        """
        while self._running:
            for each in list(self._running):
                if each.process.poll() is not None or self._refuses_to_leave(each):
                    self._running.remove(each)
                    each.kill()
                    self._handle_end(each)
                else:
                    each.cut_log()
            if self._running:
                yield
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask all workers to requeue their trials and end. Kill workers that do not end in time."""
        try:
            for each in self._running:
                each.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for each in self._running:
                with suppress(subprocess.TimeoutExpired):
                    each.process.wait(max(0.0, deadline - time.monotonic()))
                    each.kill()  # what the worker has started
        finally:  # also after a second Ctrl-C, which asks to stop at once
            self.kill()

    def kill_worker(self, name: str) -> bool:
        """Kill one worker and its child processes. `watch` then replaces the worker.

        Args:
            name: name of the worker.

        Returns:
            Whether the pool has a worker of that name.
        """
        for each in self._running:
            if each.name == name:
                each.kill()
                return True
        return False

    def kill(self) -> None:
        """Kill all workers and their child processes."""
        for each in self._running:
            each.kill()
        self._running.clear()

    def _start_one(self) -> None:
        self._started += 1
        name = f"{self.prefix}-{self._started}"
        path = self.logs / f"{name}.log"
        link = WorkerLink()
        with path.open("ab") as output:
            process = subprocess.Popen(
                self.command(name, link.descriptor),
                env={**os.environ, **WORKER_ENVIRONMENT, **self.environment},
                stdin=subprocess.DEVNULL,  # so `input()` and `breakpoint()` in user code do not wait for ever
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(link.descriptor,),
                # Ctrl-C reaches only this process, which then stops the workers.
                start_new_session=True,
            )
        link.close_worker_end()
        self._running.append(_Process(name, process, link, path, time.monotonic()))

    def _refuses_to_leave(self, worker: _Process) -> bool:
        """Return whether a worker said long ago that it is done, but is still there."""
        if worker.link.read_end() is None:
            return False
        worker.done_since = worker.done_since or time.monotonic()
        if time.monotonic() - worker.done_since < LEAVE_SECONDS:
            return False
        log.warning("%s is done but did not end in %.0f seconds; it is killed. Does user code leave a thread?", worker.name, LEAVE_SECONDS)
        return True

    def _handle_end(self, ended: _Process) -> None:
        end = ended.link.read_end()
        if end is not None and not end.cause_of_death:
            if end.error is not None:
                raise end.error
            return
        cause = cause_of_death(ended.process.returncode) if end is None else end.cause_of_death
        self.dead.append(DeadWorker(name=ended.name, cause=cause))
        failed_start = time.monotonic() - ended.started < MIN_LIFE and not self.has_claimed(ended.name)
        self._start_failures = self._start_failures + 1 if failed_start else 0
        if self._start_failures >= MAX_START_FAILURES:
            raise StudyStoppedError(f"workers die one after another, the last with {cause}", hint=f"See {ended.log_path}.")
        self._start_one()


class Watchdog:
    """Finds trials that hang. A worker ends its trial in time by itself, unless the training never returns to Python.

    The watchdog uses only the clock of this process.

    Args:
        trial_time: time limit of one trial in seconds, over all its workers; None for no limit.
    """

    def __init__(self, trial_time: float | None) -> None:
        self._trial_time = trial_time
        self._since: dict[tuple[int, int, int], float] = {}

    def overdue(self, running: Sequence[TrialRow], now: float) -> Iterator[tuple[int, str]]:
        """Find the running trials that exceed their time by more than WATCHDOG_GRACE.

        Args:
            running: the running trials.
            now: `time.monotonic()`.

        Yields:
            Number of each such trial and name of its worker.
        """
        if self._trial_time is None:
            return
        since: dict[tuple[int, int, int], float] = {}
        for trial in running:
            if trial.attempts:
                epoch = (trial.number, len(trial.attempts), len(trial.epochs))
                since[epoch] = self._since.get(epoch, now)
                if trial.seconds + now - since[epoch] > self._trial_time + WATCHDOG_GRACE:
                    yield trial.number, trial.attempts[-1]["worker"]
        self._since = since


def train_like_a_worker() -> None:
    """Restart the current command in this process with WORKER_ENVIRONMENT, unless these variables are already set.

    The C library and the thread pools read these variables when they start. So a command must call this
    function before it does anything else, and before torch is loaded.
    """
    if all(os.environ.get(key) == value for key, value in WORKER_ENVIRONMENT.items()):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **WORKER_ENVIRONMENT})
