"""Rules of a database that is locked, foreign, changed from outside, or gone."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from hpsearch.storage.database import open_store
from tests.support.db_snapshot import run_to_end, stored_trials, wait_until
from tests.support.fake_trainer import EPOCH_SECONDS
from tests.support.forkserver import ForkServer, storage_environment

from .test_signals import started, states

SQLITE_ALONE = pytest.mark.parametrize("any_storage", ["sqlite"], indirect=True)
"""Only a SQLite file can have these faults."""


@contextmanager
def plain_optuna(folder: Path) -> Iterator[optuna.storages.RDBStorage]:
    """Open the folder's database with plain Optuna."""
    storage = optuna.storages.RDBStorage(storage_environment(folder).get("OPTUNA_STORAGE", f"sqlite:///{folder / 'runs' / 'hpsearch.db'}"))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def delete_study(folder: Path) -> None:
    """Delete the study with plain Optuna, again if a worker wrote to it at the same moment: then Optuna gives up silently."""
    with plain_optuna(folder) as storage:
        for _ in range(50):
            if not storage.get_all_studies():
                return
            optuna.delete_study(study_name="small", storage=storage)
    raise AssertionError("the study cannot be deleted")


def fail_a_running_trial(folder: Path) -> int:
    """Fail a running trial with plain Optuna and return its number. Try again if the worker ended the trial at the same moment."""
    with plain_optuna(folder) as storage:
        study = optuna.load_study(study_name="small", storage=storage)
        for _ in range(8):
            number = next(trial.number for trial in stored_trials(folder) if trial.state == "RUNNING")
            with suppress(UpdateFinishedTrialError):
                study.tell(number, state=TrialState.FAIL)
                return number
    raise AssertionError("no trial runs for long enough")


@SQLITE_ALONE
@pytest.mark.slow
def test_a_locked_database_is_reported_and_waited_for(forkserver: ForkServer, folder: Path, output: Callable[[], str]) -> None:
    run = started(forkserver, folder, "--workers", "2")
    with closing(sqlite3.connect(folder / "runs" / "hpsearch.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(8)
        other.execute("ROLLBACK")
    assert run.wait(60) == 0
    logs = "".join(path.read_text() for path in (folder / "runs" / "small" / "logs").iterdir())
    assert "hpsearch.db, which another program has locked" in logs
    assert "Traceback" not in logs + output()
    assert states(folder) == ["COMPLETE"] * 8


@SQLITE_ALONE
def test_ctrl_c_works_while_another_program_locks_the_database(forkserver: ForkServer, folder: Path, output: Callable[[], str]) -> None:
    run = started(forkserver, folder, "--workers", "1")
    with closing(sqlite3.connect(folder / "runs" / "hpsearch.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(2)
        run.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert run.wait(30) == 130
        assert time.monotonic() - asked < 10
        other.execute("ROLLBACK")
    assert "Stopping: running trials go back to the queue." in output()
    assert "another program has locked it" in output()
    assert "Traceback" not in output()
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8


@pytest.mark.slow
def test_a_database_locked_before_the_start_is_waited_for(forkserver: ForkServer, searched_folder: Path) -> None:
    with closing(sqlite3.connect(searched_folder / "runs" / "hpsearch.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        run = forkserver.start(searched_folder, "run", "small.toml", "--trials", "9", output=searched_folder / "output")
        time.sleep(3)
        assert run.poll() is None
        other.execute("ROLLBACK")
    assert run.wait(60) == 0
    assert len(stored_trials(searched_folder)) == 9


@pytest.mark.parametrize("version", ["v2.6.0.a", "v99.0.0"])
def test_tables_of_another_optuna_are_refused_with_a_hint_to_upgrade(forkserver: ForkServer, searched_folder: Path, version: str) -> None:
    database = searched_folder / "runs" / "hpsearch.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute(f"UPDATE alembic_version SET version_num = '{version}'")
        other.commit()
    assert run_to_end(forkserver, searched_folder, "--trials", "9") == 2
    output = (searched_folder / "output").read_text()
    assert "holds the tables of another Optuna" in output
    assert "hint: Copy the database first; then `optuna storage upgrade" in output
    assert "Traceback" not in output
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT count(*) FROM trials").fetchone() == (8,)


def test_a_trial_failed_from_outside_is_dropped_and_the_next_starts(
    forkserver: ForkServer, folder: Path, output: Callable[[], str]
) -> None:
    run = started(forkserver, folder, "--workers", "1")
    number = fail_a_running_trial(folder)
    assert run.wait(60) == 0
    assert states(folder) == ["FAIL" if each == number else "COMPLETE" for each in range(8)]
    assert "Traceback" not in output()
    logs = "".join(path.read_text() for path in (folder / "runs" / "small" / "logs").iterdir())
    assert f"trial {number} was ended from outside" in logs


def test_a_study_deleted_during_a_run_is_reported(forkserver: ForkServer, folder: Path, output: Callable[[], str]) -> None:
    run = started(forkserver, folder, "--workers", "2")
    delete_study(folder)
    assert run.wait(30) == 2, output()
    assert output().count("error:") == 1
    assert "the study 'small', or a trial of it, is gone" in output()
    assert "Checkpoints are kept in" in output()
    assert "Traceback" not in output()
    assert list((folder / "runs" / "small" / "trials").rglob("checkpoint"))
    assert wait_until(lambda: not forkserver.alive(), 10)


def test_a_study_deleted_between_two_runs_starts_again(forkserver: ForkServer, folder: Path) -> None:
    run = started(forkserver, folder, "--workers", "1")
    run.send_signal(2)
    run.wait(10)
    delete_study(folder)
    # The fake trainer would load the checkpoint of the other study's trial; the real trainer refuses it by its owner.
    assert run_to_end(forkserver, folder, **{EPOCH_SECONDS: "0"}) == 0
    assert states(folder) == ["COMPLETE"] * 8


@SQLITE_ALONE
def test_a_database_moved_away_during_a_run_ends_the_run_and_loses_nothing(
    forkserver: ForkServer, folder: Path, output: Callable[[], str]
) -> None:
    run = started(forkserver, folder, "--workers", "1")
    away = folder / "away"
    away.mkdir()
    for path in [path for path in (folder / "runs").glob("hpsearch.db*") if path.is_file()]:
        path.rename(away / path.name)
    assert run.wait(60) == 1
    assert output().count("error:") == 1
    assert "hpsearch.db is gone" in output()
    assert "hint: Put it back" in output()
    assert "Traceback" not in output()
    for path in away.iterdir():
        path.rename(folder / "runs" / path.name)
    before = {trial.number: trial.epochs for trial in stored_trials(folder)}
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8
    assert all(trial.epochs[: len(before.get(trial.number, []))] == before.get(trial.number, []) for trial in stored_trials(folder))


@SQLITE_ALONE
def test_a_second_run_through_a_link_leaves_running_trials_alone(forkserver: ForkServer, folder: Path, output: Callable[[], str]) -> None:
    run = started(forkserver, folder, "--workers", "1")
    (folder / "link.db").symlink_to(folder / "runs" / "hpsearch.db")
    second = run_to_end(forkserver, folder, "--workers", "1", "--storage", f"sqlite:///{folder / 'link.db'}", **{EPOCH_SECONDS: "0.1"})
    assert (second, run.wait(60)) == (0, 0)
    assert states(folder) == ["COMPLETE"] * 8
    assert all(len(trial.attributes["hpsearch:attempts"]) == 1 for trial in stored_trials(folder))
    assert "were interrupted" not in output()


@SQLITE_ALONE
def test_deleted_locks_are_noticed_before_anything_is_written(forkserver: ForkServer, folder: Path, output: Callable[[], str]) -> None:
    run = started(forkserver, folder, "--workers", "1")
    shutil.rmtree(folder / "runs" / "hpsearch.db.locks")
    second = run_to_end(forkserver, folder, "--workers", "1", **{EPOCH_SECONDS: "0.1"})
    assert (second, run.wait(60)) == (0, 0)
    trials = stored_trials(folder)
    assert [trial.state for trial in trials] == ["COMPLETE"] * 8
    for trial in trials:
        assert [epoch["number"] for epoch in trial.epochs] == [step for step, _ in trial.reports] == list(range(1, len(trial.epochs) + 1))
    logs = "".join(path.read_text() for path in (folder / "runs" / "small" / "logs").iterdir())
    assert "was released: its lock was lost" in logs
    assert "Traceback" not in output() + logs


def test_a_second_store_in_one_process_leaves_the_first_its_locks(tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    first = open_store(f"sqlite:///{database}", create=True)
    study = first.create("small")
    open_store(f"sqlite:///{database}", create=False)
    # The process that closes the last connection removes the log; this one still has connections.
    other = f"import sqlite3; other = sqlite3.connect({str(database)!r}); other.execute('SELECT * FROM studies').fetchall(); other.close()"
    subprocess.run([sys.executable, "-c", other], check=True)
    assert database.with_name("study.db-wal").exists()
    study.set_user_attr("written", "after it")
    with closing(sqlite3.connect(database)) as reader:
        assert reader.execute("SELECT value_json FROM study_user_attributes").fetchall() == [('"after it"',)]
