"""Start and supervise worker processes on this machine: it is handed a command line and knows no torch."""

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
    # glibc gives large blocks back to the system at every step otherwise: a third of the time.
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    # Two workers of one thread do more than one of two, and threads that wait for each other spin.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

WORKER_MEMORY = 1_000_000_000
"""Bytes that a worker is counted with: torch, the images and a model of a few million parameters."""
TRIALS_A_WORKER = 5
"""A sampler learns little when many workers start before the first trials end."""
POLL_SECONDS = 0.2
STOP_SECONDS = 8.0
"""Time that workers have to leave their trials in good order."""
MOST_START_FAILURES = 3
"""Workers that die one after another within MINIMUM_LIFE, before they took up a trial, stop the run."""
MINIMUM_LIFE = 10.0
GRACE_SECONDS = 5.0
"""Beyond `trial_time`, for the worker to end the trial itself."""
LONGEST_ERROR = 20
"""Lines; an error that stands further from the end of a log is not why its worker ended."""


@dataclass(frozen=True, kw_only=True)
class WorkerCount:
    """How many workers, and why."""

    count: int
    reason: str


def default_workers(trials: int) -> WorkerCount:
    """The least of the cores this process may use, memory over 1 GB, and a fifth of the trials."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().available // WORKER_MEMORY
    limits = [
        (cores, f"{cores} cores"),
        (int(memory), f"{memory} GB of free memory, 1 GB a worker"),
        (trials // TRIALS_A_WORKER, f"a fifth of {trials} trials"),
    ]
    count, reason = min(limits, key=lambda limit: limit[0])
    return WorkerCount(count=max(1, count), reason=reason)


@dataclass
class _Process:
    name: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    path: Path
    started: float

    def close(self) -> None:
        """Let go of the pipe and the log of a process that has ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.log.close()


@dataclass
class WorkerPool:
    """The worker processes of one run.

    Attributes:
        command: of a worker; its name is appended.
        environment: of the workers, on top of this process's own and WORKER_ENVIRONMENT.
        logs: the folder of their logs, `<name>.log`.
        has_claimed: whether the worker of that name ever took up a trial; if so, its death is the trial's doing.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    logs: Path
    count: int
    prefix: str
    has_claimed: Callable[[str], bool] = lambda name: False
    _running: list[_Process] = field(default_factory=list)
    _started: int = 0
    _short_lives: int = 0
    deaths: int = 0

    def start(self) -> None:
        """Start all workers."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for _ in range(self.count):
            self._start_one()

    def watch(self) -> Iterator[None]:
        """Yields several times a second while any worker lives; a worker that died is replaced.

        Raises:
            HpsearchError: a worker gave up; with what it said.
        """
        while self._running:
            for ended in [each for each in self._running if each.process.poll() is not None]:
                self._running.remove(ended)
                ended.close()
                self._judge(ended)
            if self._running:
                yield
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask all workers to leave their trials in good order, and end those that do not."""
        try:
            for each in self._running:
                each.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for each in self._running:
                with suppress(subprocess.TimeoutExpired):
                    each.process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also when a second Ctrl-C says: at once
            self.kill()

    def kill_worker(self, name: str) -> bool:
        """End one worker and what it started; returns whether it is one of this crew. Another takes its place."""
        for each in self._running:
            if each.name == name:
                _kill_tree(each.process.pid)
                each.process.wait()
                return True
        return False

    def kill(self) -> None:
        """End all workers and what they started at once."""
        for each in self._running:
            _kill_tree(each.process.pid)
            each.process.wait()
            each.close()
        self._running.clear()

    def _start_one(self) -> None:
        self._started += 1
        name = f"{self.prefix}-{self._started}"
        path = self.logs / f"{name}.log"
        log = path.open("ab")
        # Colours are for terminals; a log with them could not be read for what its worker says.
        inherited = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"}
        process = subprocess.Popen(
            [*self.command, name],
            env={**inherited, **WORKER_ENVIRONMENT, **self.environment},
            # The pipe ends with this process, however that ends: the worker's sign to leave.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches this process alone, which asks the workers in its own way.
            start_new_session=True,
        )
        self._running.append(_Process(name, process, log, path, time.monotonic()))

    def _judge(self, ended: _Process) -> None:
        code = ended.process.returncode
        if code == 0:
            return
        if code in (HpsearchError.exit_code, UsageError.exit_code, OutageError.exit_code) and (told := _told(ended)) is not None:
            raise told
        self.deaths += 1
        in_vain = time.monotonic() - ended.started < MINIMUM_LIFE and not self.has_claimed(ended.name)
        self._short_lives = self._short_lives + 1 if in_vain else 0
        if self._short_lives >= MOST_START_FAILURES:
            raise StudyStoppedError(f"workers die one after another, the last with {_cause(code)}", hint=f"See {ended.path}.")
        self._start_one()


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _told(ended: _Process) -> HpsearchError | None:
    """What a worker said before it gave up, in the last lines of its log; None where it just died, as by `os._exit(1)`."""
    lines = ended.path.read_text(errors="replace").splitlines()
    begin = max((number for number, line in enumerate(lines) if line.startswith("error: ")), default=None)
    if begin is None or len(lines) - begin > LONGEST_ERROR:
        return None
    message, _, hint = "\n".join(lines[begin:]).removeprefix("error: ").partition("\n  hint: ")
    kinds = {UsageError.exit_code: UsageError, OutageError.exit_code: OutageError}
    return kinds.get(ended.process.returncode, StudyStoppedError)(message, hint=hint)


def _kill_tree(pid: int) -> None:
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


class Watchdog:
    """Knows how long each running trial has been at its present epoch, by this process's clock alone.

    Args:
        trial_time: seconds that a trial has over all continuations; None for no limit.
    """

    def __init__(self, trial_time: float | None) -> None:
        self._trial_time = trial_time
        self._since: dict[tuple[int, int, int], float] = {}

    def overdue(self, running: Sequence[TrialRow], now: float) -> Iterator[tuple[int, str]]:
        """The running trials that have overrun their time by more than the grace, each with its worker's name."""
        if self._trial_time is None:
            return
        seen: dict[tuple[int, int, int], float] = {}
        for trial in running:
            if trial.attempts:
                key = (trial.number, len(trial.attempts), len(trial.epochs))
                seen[key] = self._since.get(key, now)
                if trial.seconds + now - seen[key] > self._trial_time + GRACE_SECONDS:
                    yield trial.number, trial.attempts[-1]["worker"]
        self._since = seen


def train_like_a_worker() -> None:
    """Go on with the same command in the same process under the environment that workers have.

    The C library and the thread pools read it when they start, hence a start from the beginning.
    It comes first in a command: nothing of it has happened yet, and torch is not loaded.
    """
    if all(os.environ.get(key) == value for key, value in WORKER_ENVIRONMENT.items()):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **WORKER_ENVIRONMENT})
