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
from hpsearch.workflows.supervisor import WORKER_COMMAND


def _worker_pool(tmp_path: Path, code: str, count: int = 1, **environment: str) -> WorkerPool:
    return WorkerPool(
        command=lambda name, descriptor: [sys.executable, "-c", code, str(descriptor)],
        environment=environment,
        logs=tmp_path / "logs",
        count=count,
        prefix="worker",
        has_claimed=lambda name: False,
    )


DONE = "\nimport socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'{}')"
"""What a worker does before it ends: it tells its supervisor that it is done."""


def _wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert text in log.read_text()


def _is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _watch(pool: WorkerPool, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    for _ in pool.watch():
        assert time.monotonic() < deadline


def test_workers_get_the_allocator_settings_and_one_thread(tmp_path: Path) -> None:
    pool = _worker_pool(
        tmp_path,
        "import os; print(os.environ['MALLOC_MMAP_THRESHOLD_'], os.environ['OMP_NUM_THREADS'], os.environ['SECRET'])" + DONE,
        SECRET="x",
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
    pool = _worker_pool(tmp_path, code + DONE)
    pool.start()
    _watch(pool)
    assert [(dead.name, dead.cause) for dead in pool.dead] == [("worker-1", "SIGKILL")]
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"worker-1.log", "worker-2.log"}


def test_workers_that_die_one_after_another_stop_the_run(tmp_path: Path) -> None:
    pool = _worker_pool(tmp_path, "import os; os.abort()")
    pool.start()
    with pytest.raises(StudyStoppedError, match="die one after another, the last with SIGABRT"):
        _watch(pool)


def test_the_message_of_a_worker_that_gives_up_is_the_error(tmp_path: Path) -> None:
    code = """
import sys
from hpsearch.errors import UsageError
from hpsearch.search.worker_link import link_to_supervisor
with link_to_supervisor(int(sys.argv[1])):
    raise UsageError("no data", hint="fetch it")
"""
    pool = _worker_pool(tmp_path, code)
    pool.start()
    with pytest.raises(UsageError) as caught:
        _watch(pool)
    assert (caught.value.message, caught.value.hint) == ("no data", "fetch it")


@pytest.mark.parametrize(("code", "says"), [("raise KeyError('gone')", "KeyError: 'gone'"), ("sys.exit(3)", "SystemExit: 3")])
def test_a_data_set_that_fails_in_a_worker_is_named_once(tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "own.py").write_text(f"import sys, hpsearch\n@hpsearch.dataset('own')\ndef own(root, *, train):\n    {code}\n")
    program = f"""
import sys
from pathlib import Path
from hpsearch.config.registration import load_component_file
from hpsearch.search.worker_link import link_to_supervisor
with link_to_supervisor(int(sys.argv[1])):
    load_component_file(Path({str(tmp_path / "own.py")!r}))[0].factory(None, train=True)
"""
    pool = _worker_pool(tmp_path, program)
    pool.start()
    with pytest.raises(UsageError, match=f"own.py' failed: {says}") as caught:
        _watch(pool)
    assert caught.value.hint == "Look at line 4 of the file."
    assert pool.deaths == 0


def test_files_of_the_working_folder_hide_no_module_of_a_worker(tmp_path: Path) -> None:
    for name in ("random", "types", "numpy", "logging", "optuna", "torch", "typing", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*WORKER_COMMAND, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", ["print('error: all is lost'); sys.exit(1)", "os._exit(0)", "sys.exit(0)"])
def test_what_user_code_prints_or_how_it_exits_is_not_the_word_of_the_worker(tmp_path: Path, code: str) -> None:
    mark = tmp_path / "mark"
    pool = _worker_pool(tmp_path, f"import os, sys\nif not os.path.exists({str(mark)!r}):\n    open({str(mark)!r}, 'w'); {code}{DONE}")
    pool.start()
    _watch(pool)
    assert len(pool.dead) == 1


def test_user_code_that_reads_standard_input_gets_its_end(tmp_path: Path) -> None:
    pool = _worker_pool(tmp_path, f"try:\n    input()\nexcept EOFError:\n    print('nothing there'){DONE}")
    pool.start()
    _watch(pool)
    assert pool.deaths == 0
    assert (tmp_path / "logs" / "worker-1.log").read_text() == "nothing there\n"


THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()"
PROCESS = "import multiprocessing, time; multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,)).start()"


@pytest.mark.parametrize("code", [THREAD, PROCESS], ids=["thread", "process"])
def test_a_worker_that_is_done_but_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    monkeypatch.setattr(worker_pool, "LEAVE_SECONDS", 0.5)
    pool = _worker_pool(tmp_path, code + DONE)
    pool.start()
    _watch(pool)
    assert pool.deaths == 0
    assert "worker-1 is done but did not end" in caplog.text


def test_the_child_processes_of_a_dead_worker_are_killed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"""
import os, pathlib, signal, subprocess
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.touch()
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    pool = _worker_pool(tmp_path, code + DONE)
    pool.start()
    _watch(pool)
    assert pool.deaths == 1
    assert _is_gone(int((tmp_path / "logs" / "worker-1.log").read_text()))


def test_a_long_log_is_cut_and_its_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "MAX_LOG", 100_000)
    monkeypatch.setattr(worker_pool, "KEPT_LOG", 1_000)
    code = "import time\nfor number in range(200): print(number, 'x' * 1000, flush=True); time.sleep(0.01)"
    pool = _worker_pool(tmp_path, code + DONE)
    pool.start()
    _watch(pool)
    log, kept = (tmp_path / "logs" / name for name in ("worker-1.log", "worker-1.log.1"))
    assert log.stat().st_size < 150_000
    assert log.read_text().splitlines()[-1].startswith("199 ")
    assert len(kept.read_bytes()) == 1_000


def test_stop_asks_and_then_kills_the_whole_process_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "STOP_SECONDS", 0.5)
    code = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""
    pool = _worker_pool(tmp_path, code)
    pool.start()
    log = tmp_path / "logs" / "worker-1.log"
    _wait_for(log, "\n")
    pool.stop()
    assert _is_gone(int(log.read_text()))


def test_a_worker_that_ends_by_itself_is_not_killed(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('left'), sys.exit(0))); print('on', flush=True); time.sleep(60)"
    pool = _worker_pool(tmp_path, code)
    pool.start()
    log = tmp_path / "logs" / "worker-1.log"
    _wait_for(log, "on")
    pool.stop()
    assert "left" in log.read_text()


@pytest.mark.parametrize(("trials", "expected"), [(1, "a fifth of 1 trials"), (4, "a fifth of 4 trials")])
def test_few_trials_get_one_worker(trials: int, expected: str) -> None:
    count = default_workers(trials)
    assert count.count == 1
    assert count.reason == expected


@pytest.mark.parametrize(("handler", "signal_number"), [("SIG_DFL", signal.SIGTERM), ("SIG_IGN", signal.SIGKILL)])
def test_a_worker_leaves_when_its_supervisor_is_gone(tmp_path: Path, handler: str, signal_number: int) -> None:
    code = f"""
import signal, sys, time
from hpsearch.search import worker_link
worker_link.EXIT_GRACE = 0.2
signal.signal(signal.SIGTERM, signal.{handler})
with worker_link.link_to_supervisor(int(sys.argv[1])):
    print("on", flush=True)
    time.sleep(60)
"""
    pool = _worker_pool(tmp_path, code)
    pool.start()
    _wait_for(tmp_path / "logs" / "worker-1.log", "on")
    process, link = pool._running[0].process, pool._running[0].link
    link.close()
    assert process.wait(10) == -signal_number
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
