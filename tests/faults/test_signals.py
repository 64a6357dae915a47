"""Rules of Ctrl-C, SIGTERM, SIGSTOP and `hpsearch stop`; with real processes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.db_snapshot import run_to_end, stored_trials, wait_until
from tests.support.fake_trainer import EPOCH_SECONDS
from tests.support.forkserver import Forked, ForkServer, storage_environment
from tests.support.small_study import ROOT, hpsearch

SLOW = {EPOCH_SECONDS: "0.5"}
Said = Callable[[], str]


def trains(folder: Path) -> bool:
    """Return whether a running trial has an epoch."""
    return any(trial.state == "RUNNING" and trial.epochs for trial in stored_trials(folder))


def started(forkserver: ForkServer, folder: Path, *options: str, **environment: str) -> Forked:
    run = forkserver.start(folder, "run", "small.toml", *options, output=folder / "output", **{**SLOW, **environment})
    assert wait_until(lambda: trains(folder), 60)
    return run


def states(folder: Path) -> list[str]:
    return [trial.state for trial in stored_trials(folder)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_requeues_running_trials_and_the_same_command_continues(
    forkserver: ForkServer, folder: Path, output: Said, number: int, code: int
) -> None:
    run = started(forkserver, folder, "--workers", "2")
    run.send_signal(number)
    assert run.wait(10) == code
    assert "Stopping: running trials go back to the queue." in output()
    assert "interrupted at epoch" in output()
    assert "Continue with the same command." in output()
    assert "Traceback" not in output()
    assert "RUNNING" not in states(folder)
    epochs = {trial.number: trial.epochs for trial in stored_trials(folder)}
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8
    assert all(trial.epochs[: len(epochs.get(trial.number, []))] == epochs.get(trial.number, []) for trial in stored_trials(folder))


def test_a_second_signal_stops_at_once_and_the_study_can_continue(forkserver: ForkServer, folder: Path, output: Said) -> None:
    run = started(forkserver, folder, "--workers", "2")
    for pid, arguments in forkserver.alive().items():
        if arguments[0] == "worker":
            forkserver.kill(pid, number=signal.SIGSTOP)  # workers that do not answer
    run.send_signal(signal.SIGINT)
    assert wait_until(lambda: "A second Ctrl-C stops at once." in output(), 5), output()
    asked = time.monotonic()
    run.send_signal(signal.SIGINT)
    assert run.wait(10) == 130
    assert time.monotonic() - asked < 3
    assert "Traceback" not in output()
    assert "RUNNING" not in states(folder)
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8


def test_ctrl_c_on_a_terminal_prints_no_traceback(folder: Path) -> None:
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, sys.executable, "-m", "tests.support.fake_trainer", "run", "small.toml", "--workers", "1"],
        cwd=folder,
        env={**os.environ, **storage_environment(folder), "PYTHONPATH": str(ROOT), "TERM": "xterm", **SLOW},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    assert wait_until(lambda: trains(folder), 90)
    os.write(ours, b"\x03")
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the process closed its end
            break
        shown += part
        if not part:
            break
    os.close(ours)
    assert run.wait(10) == 130
    assert b"Continue with the same command." in shown
    assert b"Traceback" not in shown
    assert "RUNNING" not in states(folder)


TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


def test_stop_and_continue_change_nothing(forkserver: ForkServer, folder: Path, output: Said) -> None:
    run = started(forkserver, folder, "--workers", "1")
    frozen = list(forkserver.alive())
    forkserver.kill(*frozen, number=signal.SIGSTOP)
    before = stored_trials(folder)
    time.sleep(2)
    # Another run must not take the frozen worker for a dead one.
    assert run_to_end(forkserver, folder, "--trials", "1") in (0, 1)
    assert states(folder)[: len(before)] == [trial.state for trial in before]
    forkserver.kill(*frozen, number=signal.SIGCONT)
    assert run.wait(60) == 0
    assert states(folder) == ["COMPLETE"] * 8
    assert "worker died" not in output()
    assert all(len(trial.attributes["hpsearch:attempts"]) == 1 for trial in stored_trials(folder))


def test_workers_leave_when_their_supervisor_is_killed(forkserver: ForkServer, folder: Path, output: Said) -> None:
    run = started(forkserver, folder, "--workers", "2")
    forkserver.kill(run.pid)
    assert wait_until(lambda: not forkserver.alive(), 5)
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8


def test_a_run_that_begins_while_orphans_leave_loses_nothing(forkserver: ForkServer, folder: Path) -> None:
    run = started(forkserver, folder, "--workers", "2")
    forkserver.kill(run.pid)
    assert run_to_end(forkserver, folder) == 0
    assert wait_until(lambda: not forkserver.alive(), 5)
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8


def test_stop_from_another_terminal(forkserver: ForkServer, folder: Path, output: Said) -> None:
    run = started(forkserver, folder, "--workers", "2", **{EPOCH_SECONDS: "2"})  # so that a trial runs, however slow the other command is
    asked = forkserver.start(folder, "stop", "small.toml", output=folder / "asked")
    assert asked.wait(20) == 0
    assert "were asked to stop" in (folder / "asked").read_text()
    assert run.wait(10) == 143
    assert "Continue with the same command." in output()
    assert "RUNNING" not in states(folder)
    assert forkserver.start(folder, "stop", "small", output=folder / "asked").wait(20) == 0
    assert "No trial is running now" in (folder / "asked").read_text()
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8


def test_stop_of_a_missing_study_is_an_error(searched_folder: Path) -> None:
    done = hpsearch(searched_folder, "stop", "smal")
    assert done.returncode == 2
    assert "Did you mean 'small'?" in done.stderr


def test_the_tests_work_where_a_script_has_ignored_sigint() -> None:
    # A shell starts a background command of a script like this. All processes of the tests would inherit it, and not end by Ctrl-C.
    code = (
        "import signal; before = signal.getsignal(signal.SIGINT); import tests.conftest; print([before, signal.getsignal(signal.SIGINT)])"
    )
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", code]
    done = subprocess.run(ignoring, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{[signal.SIG_IGN, signal.default_int_handler]}\n"
