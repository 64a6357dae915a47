"""Rules of a custom component that raises, exits, crashes, hangs or uses all memory; with the real trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.db_snapshot import StoredTrial, run_to_end, stored_trials, wait_until
from tests.support.forkserver import ForkServer

Own = Callable[..., None]
Said = Callable[[], str]
pytestmark = pytest.mark.slow


def reasons(folder: Path) -> list[str]:
    return [trial.attributes.get("hpsearch:end", {}).get("reason", "") for trial in stored_trials(folder)]


def only_trial(folder: Path) -> StoredTrial:
    (trial,) = stored_trials(folder)
    return trial


def is_gone(pid: int) -> bool:
    return wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 5)


sqlite_only = pytest.mark.parametrize("any_storage", ["sqlite"], indirect=True)
"""For errors that never reach the storage as such: what is written then is written as after any failed trial."""


@sqlite_only
@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        ("raise ValueError('a bug')", "ValueError: a bug"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("raise MemoryError", "out of memory"),
        ("torch.empty(10**15)", "out of memory"),
    ],
    ids=["raises", "exits", "no memory", "too large a tensor"],
)
def test_an_error_in_a_model_fails_its_trial(
    real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said, forward: str, reason: str
) -> None:
    own_model(forward, trials=1)
    assert run_to_end(real_forkserver, folder) == 1  # no trial has a result
    trial = only_trial(folder)
    assert trial.state == "FAIL"
    assert reasons(folder)[0].startswith(reason)
    assert "own.py" in trial.attributes["hpsearch:end"]["traceback"]
    assert "Traceback" not in output()


def test_the_same_error_three_times_stops_the_study(real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said) -> None:
    own_model("raise ValueError(f'a bug of {os.urandom(4).hex()}')", trials=8)
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 1
    assert "trials 0, 1, 2 failed in the same way: ValueError: a bug of " in output()
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL"] * 3


@pytest.mark.parametrize(
    ("forward", "cause"),
    [("os._exit(1)", "exit code 1"), ("os._exit(0)", "exit code 0"), ("ctypes.string_at(0)", "SIGSEGV")],
    ids=["exit 1", "exit 0", "segfault"],
)
def test_a_trial_that_kills_its_workers_fails_and_the_study_goes_on(
    real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said, forward: str, cause: str
) -> None:
    own_model(f"if self.training and happens(3): {forward}")
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 0
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL", "COMPLETE"]
    failed = stored_trials(folder)[0]
    reason = failed.attributes["hpsearch:end"]["reason"]
    assert reason.startswith("its worker died 3 times in epoch 1 while the supervisor lived: ")
    assert reason.count(cause) == 3
    assert len(failed.attributes["hpsearch:attempts"]) == 4  # the fourth worker saw that three had died
    if "string_at" in forward:
        assert "Segmentation fault" in failed.attributes["hpsearch:end"]["traceback"]
    assert "Traceback" not in output()


def test_a_worker_that_is_killed_leaves_no_process_and_no_lease(
    real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said
) -> None:
    # The killer is a child process of the worker. Another process, like one of a process pool, outlives both.
    pool = "    if os.fork() == 0: open('child', 'w').write(str(os.getpid())); ctypes.CDLL(None).sleep(300)"
    own_model(
        f"if self.training and happens(1):\n        {pool}\n            os.kill(os.getppid(), 9)\n            ctypes.CDLL(None).sleep(300)"
    )
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 0
    assert [trial.state for trial in stored_trials(folder)] == ["COMPLETE", "COMPLETE"]
    assert len(stored_trials(folder)[0].attributes["hpsearch:attempts"]) == 2
    assert is_gone(int((folder / "child").read_text()))
    assert "Traceback" not in output()


@sqlite_only
@pytest.mark.parametrize(
    ("forward", "reason"),
    [("input()", "EOFError"), ("breakpoint()", "RuntimeError: breakpoint() needs a terminal, but a worker has none")],
)
def test_user_code_that_waits_for_a_person_fails_its_trial(
    real_forkserver: ForkServer, folder: Path, own_model: Own, forward: str, reason: str
) -> None:
    own_model(f"if self.training and happens(1): {forward}")
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 0
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL", "COMPLETE"]
    assert reasons(folder)[0].startswith(reason)


@sqlite_only
def test_threads_and_long_texts_of_user_code_do_no_harm(real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said) -> None:
    own_model(
        "import threading, time\n"
        "        threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "        if self.training and happens(1): raise ValueError('x' * 3_000_000)"
    )
    began = time.monotonic()
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 0
    assert time.monotonic() - began < 200
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL", "COMPLETE"]
    end = stored_trials(folder)[0].attributes["hpsearch:end"]
    assert "own.py" in end["traceback"]
    assert len(end["traceback"]) < 20_000
    assert len(end["reason"]) < 400


@sqlite_only
def test_out_of_memory_fails_the_trial_and_the_next_trains(real_forkserver: ForkServer, folder: Path, own_model: Own) -> None:
    own_model(
        "import resource\n"
        "        if self.training and happens(1):\n"
        "            limit = resource.getrlimit(resource.RLIMIT_AS)\n"
        "            resource.setrlimit(resource.RLIMIT_AS, (6 * 10**9, limit[1]))\n"
        "            try:\n"
        "                hoard = [torch.ones(10**8) for _ in range(20)]\n"
        "            finally:\n"
        "                resource.setrlimit(resource.RLIMIT_AS, limit)"
    )
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 0
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL", "COMPLETE"]
    assert reasons(folder)[0].startswith("out of memory")


def test_a_hung_trial_is_ended_with_its_whole_process_tree(real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said) -> None:
    # It ignores signals and sleeps in C, so it never returns to Python, where the timer would interrupt it.
    hang = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM}); import subprocess; open('child', 'w').write(str(subprocess.Popen(['sleep', '300']).pid)); ctypes.PyDLL(None).sleep(300)"
    own_model(f"if self.training and happens(1): {hang}", more='\ntrial_time = "2s"')
    began = time.monotonic()
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 0
    assert time.monotonic() - began < 60
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL", "COMPLETE"]
    assert reasons(folder)[0] == "trial_time was spent before its first epoch"
    assert is_gone(int((folder / "child").read_text()))
    assert "Traceback" not in output()


@sqlite_only
def test_failed_trials_are_tried_again_beyond_the_budget(real_forkserver: ForkServer, folder: Path, own_model: Own, output: Said) -> None:
    own_model("if not os.path.exists('mended'): raise ValueError(os.urandom(4).hex())", trials=2)
    assert run_to_end(real_forkserver, folder, "--workers", "1") == 1
    assert [trial.state for trial in stored_trials(folder)] == ["FAIL", "FAIL"]
    (folder / "mended").touch()
    assert run_to_end(real_forkserver, folder, "--workers", "1") in (0, 1)
    assert len(stored_trials(folder)) == 2
    assert run_to_end(real_forkserver, folder, "--workers", "1", "--retry-failed") == 0
    assert "Failed trials 0, 1 are tried again." in output()
    trials = stored_trials(folder)
    assert [trial.state for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.attributes["hpsearch:retry_of"] for trial in trials[2:]] == [0, 1]
    assert [trial.params for trial in trials[2:]] == [trial.params for trial in trials[:2]]
    assert run_to_end(real_forkserver, folder, "--workers", "1", "--retry-failed") == 0
    assert len(stored_trials(folder)) == 4
