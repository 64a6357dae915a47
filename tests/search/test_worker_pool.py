"""Rules of the worker pool: start, watch, replace and stop worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpsearch.errors import StudyStoppedError, UsageError
from hpsearch.search import worker_pool
from hpsearch.search.worker_pool import WORKER_ENVIRONMENT, WorkerPool, default_workers


def _worker_pool(tmp_path: Path, code: str, count: int = 1, **environment: str) -> WorkerPool:
    return WorkerPool(
        command=lambda name: [sys.executable, "-c", code, name],
        environment=environment,
        logs=tmp_path / "logs",
        count=count,
        prefix="worker",
        has_claimed=lambda name: False,
    )


def _watch(pool: WorkerPool, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    for _ in pool.watch():
        assert time.monotonic() < deadline


def test_workers_get_the_allocator_settings_and_one_thread(tmp_path: Path) -> None:
    pool = _worker_pool(
        tmp_path, "import os; print(os.environ['MALLOC_MMAP_THRESHOLD_'], os.environ['OMP_NUM_THREADS'], os.environ['SECRET'])", SECRET="x"
    )
    pool.start()
    _watch(pool)
    assert (tmp_path / "logs" / "worker-1.log").read_text() == "2000000000 1 x\n"


def test_the_environment_and_not_the_command_line_carries_the_secret(tmp_path: Path) -> None:
    pool = _worker_pool(tmp_path, "import time; time.sleep(30)", SECRET="hunter2")
    pool.start()
    try:
        assert "hunter2" not in " ".join(psutil.Process(pool._running[0].process.pid).cmdline())
    finally:
        pool.kill()


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        f"import os, pathlib, signal; m = pathlib.Path({str(mark)!r}); f = m.exists(); m.touch(); f or os.kill(os.getpid(), signal.SIGKILL)"
    )
    pool = _worker_pool(tmp_path, code)
    pool.start()
    _watch(pool)
    assert pool.deaths == 1
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"worker-1.log", "worker-2.log"}


def test_workers_that_die_one_after_another_stop_the_run(tmp_path: Path) -> None:
    pool = _worker_pool(tmp_path, "import os; os.abort()")
    pool.start()
    with pytest.raises(StudyStoppedError, match="die one after another, the last with signal SIGABRT"):
        _watch(pool)


def test_the_message_of_a_worker_that_gives_up_is_the_error(tmp_path: Path) -> None:
    pool = _worker_pool(tmp_path, "import sys; print('error: no data\\n  hint: fetch it', file=sys.stderr); sys.exit(2)")
    pool.start()
    with pytest.raises(UsageError) as caught:
        _watch(pool)
    assert (caught.value.message, caught.value.hint) == ("no data", "fetch it")


def test_stop_asks_and_then_kills_the_whole_process_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "STOP_SECONDS", 0.5)
    code = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
    pool = _worker_pool(tmp_path, code)
    pool.start()
    log = tmp_path / "logs" / "worker-1.log"
    deadline = time.monotonic() + 20
    while not log.read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(log.read_text())
    pool.stop()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_worker_that_ends_by_itself_is_not_killed(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('left'), sys.exit(0))); print('on', flush=True); time.sleep(60)"
    pool = _worker_pool(tmp_path, code)
    pool.start()
    log = tmp_path / "logs" / "worker-1.log"
    deadline = time.monotonic() + 20
    while "on" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    pool.stop()
    assert "left" in log.read_text()


@pytest.mark.parametrize(("trials", "expected"), [(1, "a fifth of 1 trials"), (4, "a fifth of 4 trials")])
def test_few_trials_get_one_worker(trials: int, expected: str) -> None:
    count = default_workers(trials)
    assert count.count == 1
    assert count.reason == expected


def test_never_more_workers_than_cores() -> None:
    assert default_workers(10_000).count <= (os.cpu_count() or 1)


def test_a_worker_leaves_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    # A worker's standard input ends with its supervisor; see `hpsearch.workflows.worker_process`.
    code = """
import os, signal, sys, threading
sys.path.insert(0, os.getcwd())
from hpsearch.workflows.worker_process import _leave_with_supervisor
threading.Thread(target=_leave_with_supervisor, daemon=True).start()
print("on", flush=True)
signal.pause()
"""
    pool = _worker_pool(tmp_path, code)
    pool.start()
    log = tmp_path / "logs" / "worker-1.log"
    deadline = time.monotonic() + 30
    while "on" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    process = pool._running[0].process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(5) == -signal.SIGTERM
    pool.kill()


SHOW = """
import os
print("begun")
from hpsearch.search.worker_pool import train_like_a_worker
train_like_a_worker()
print(os.environ["MALLOC_MMAP_THRESHOLD_"], os.environ["OMP_NUM_THREADS"])
"""


def test_a_training_command_restarts_once_with_the_workers_environment() -> None:
    bare = {key: value for key, value in os.environ.items() if key not in WORKER_ENVIRONMENT}
    for environment, times in ((bare, 2), ({**bare, **WORKER_ENVIRONMENT}, 1)):
        done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "begun\n" * times + "2000000000 1\n"
