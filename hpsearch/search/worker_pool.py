"""Start worker processes on this machine, replace dead workers, and find trials that hang. This module does not load torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from hpsearch.errors import HpsearchError, OutageError, StudyStoppedError, UsageError

if TYPE_CHECKING:
    from hpsearch.storage.records import TrialRow

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
MAX_ERROR_LINES = 20
"""Maximum number of lines from an error message to the end of a log. An earlier message is not the reason for the end."""
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().available // WORKER_MEMORY
    return WorkerCount.smallest(
        (cores, f"{cores} cores"),
        (int(memory), f"{memory} GB of free memory, 1 GB a worker"),
        (trials // TRIALS_PER_WORKER, f"a fifth of {trials} trials"),
    )


@dataclass(frozen=True)
class _Process:
    name: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    log_path: Path
    started: float

    def close(self) -> None:
        """Close the pipe and the log of an ended process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.log.close()


@dataclass
class WorkerPool:
    """The worker processes of one run on this machine.

    Attributes:
        command: returns the command line of a worker. It takes the name of the worker.
        environment: environment variables of the workers, added to the variables of this process and to WORKER_ENVIRONMENT.
        logs: the folder of the log files, which are named `<name>.log`.
        count: number of workers.
        prefix: beginning of the workers' names.
        has_claimed: returns whether a worker ever claimed a trial. If it did, its death does not count as a failed start.
        deaths: number of workers that died and were replaced.
    """

    command: Callable[[str], Sequence[str]]
    environment: Mapping[str, str]
    logs: Path
    count: int
    prefix: str
    has_claimed: Callable[[str], bool]
    deaths: int = 0
    _running: list[_Process] = field(default_factory=list)
    _started: int = 0
    _start_failures: int = 0

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
            for ended in [each for each in self._running if each.process.poll() is not None]:
                self._running.remove(ended)
                ended.close()
                self._handle_end(ended)
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
                _kill_tree(each.process)
                return True
        return False

    def kill(self) -> None:
        """Kill all workers and their child processes."""
        for each in self._running:
            _kill_tree(each.process)
            each.close()
        self._running.clear()

    def _start_one(self) -> None:
        self._started += 1
        name = f"{self.prefix}-{self._started}"
        path = self.logs / f"{name}.log"
        log = path.open("ab")
        # `_logged_error` could not find the error message of the worker in a log with colours.
        inherited = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"}
        process = subprocess.Popen(
            self.command(name),
            env={**inherited, **WORKER_ENVIRONMENT, **self.environment},
            # The pipe closes when this process ends, even if this process is killed. The worker then ends too.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches only this process, which then stops the workers.
            start_new_session=True,
        )
        self._running.append(_Process(name, process, log, path, time.monotonic()))

    def _handle_end(self, ended: _Process) -> None:
        code = ended.process.returncode
        if code == 0:
            return
        error = _logged_error(ended)
        if error is not None:
            raise error
        self.deaths += 1
        failed_start = time.monotonic() - ended.started < MIN_LIFE and not self.has_claimed(ended.name)
        self._start_failures = self._start_failures + 1 if failed_start else 0
        if self._start_failures >= MAX_START_FAILURES:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise StudyStoppedError(f"workers die one after another, the last with {cause}", hint=f"See {ended.log_path}.")
        self._start_one()


def _logged_error(ended: _Process) -> HpsearchError | None:
    """Return the error in the last lines of a worker's log. Return None if the worker died without an error message."""
    kinds = {HpsearchError.exit_code: StudyStoppedError, UsageError.exit_code: UsageError, OutageError.exit_code: OutageError}
    kind = kinds.get(ended.process.returncode)
    lines = ended.log_path.read_text(errors="replace").splitlines() if kind else []
    start = max((number for number, line in enumerate(lines) if line.startswith("error: ")), default=None)
    if kind is None or start is None or len(lines) - start > MAX_ERROR_LINES:
        return None
    message, _, hint = "\n".join(lines[start:]).removeprefix("error: ").partition("\n  hint: ")
    return kind(message, hint=hint)


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for each in (*parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


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
