"""Rules of claims: exact budgets, requeued trials, and what stops a study."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.config.epoch import Epoch
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import LeaseLostError, StudyNotFoundError, StudyStoppedError
from hpsearch.search.budget import refuse_repeated_failure
from hpsearch.search.claim import is_being_searched, record_death
from hpsearch.search.worker import Worker
from hpsearch.search.worker_order import WorkerOrder
from hpsearch.search.worker_pool import DeadWorker
from hpsearch.storage.locks import Lease
from hpsearch.storage.records import TrialKey, read_deaths, read_identity, read_study, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import add_trial
from hpsearch.workflows.supervisor import Search
from hpsearch.workflows.worker_process import run_worker
from tests.support.fake_trainer import make_fake_trainer


@contextmanager
def listening(call: Callable[..., None]) -> Iterator[None]:
    """Call a function at each checkout of a database connection."""
    sqlalchemy.event.listen(sqlalchemy.Pool, "checkout", call)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Pool, "checkout", call)


def failing(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
    raise RuntimeError("the same bug")
    yield


def test_the_budget_is_exact(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    assert make_worker(search).work() == 8
    assert make_worker(search, name="late").work() == 0
    assert len(read_trials(search.study)) == 8


def test_baselines_are_tried_first_and_count(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    make_worker(search).work()
    first = read_trials(search.study)[0]
    assert first.origin == "baseline"
    assert first.params == {"model": "lenet5", "optimizer": "sgd", "epochs": 3, "sgd.lr": 0.05}


def test_a_trial_whose_worker_is_gone_is_continued_under_its_number(
    searched: Callable[..., Search], make_worker: Callable[..., Worker]
) -> None:
    search = searched()
    dead = make_worker(search, name="dead").claimer.claim()
    assert dead is not None
    dead.lease.release()  # what the kernel does when a process dies
    claim = make_worker(search, name="heir").claimer.claim()
    assert claim is not None
    assert claim.trial.number == dead.trial.number
    assert claim.config == dead.config
    assert len(read_trials(search.study)) == 1


def test_a_trial_whose_worker_lives_is_left_alone(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], workspace: Workspace
) -> None:
    search = searched()
    first = make_worker(search, name="a").claimer.claim()
    second = make_worker(search, name="b").claimer.claim()
    assert first is not None
    assert second is not None
    assert first.trial.number != second.trial.number
    assert is_being_searched(search.study, workspace.locks)


def test_a_continued_trial_counts_once(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    claim = make_worker(search).claimer.claim()
    assert claim is not None
    claim.lease.release()
    make_worker(search).work()
    trials = read_trials(search.study)
    assert len(trials) == 8
    assert [trial.state for trial in trials] == ["complete"] * 8


@pytest.mark.parametrize(("cause", "seen_by_supervisor", "fatal"), [("SIGSEGV", True, 3), ("SIGKILL", True, 10), ("SIGKILL", False, None)])
def test_a_trial_that_kills_its_workers_fails_with_the_tail_of_the_log(
    searched: Callable[..., Search],
    make_worker: Callable[..., Worker],
    workspace: Workspace,
    cause: str,
    seen_by_supervisor: bool,
    fatal: int | None,
) -> None:
    search = searched()
    logs = workspace.paths.study("small").logs
    logs.mkdir(parents=True)
    for number in range(fatal or 12):
        claim = make_worker(search, name=f"worker-{number}").claimer.claim()
        assert claim is not None
        assert claim.trial.number == 0
        claim.lease.release()
        (logs / f"worker-{number}.log").write_text(f"{'x' * 200_000}\nFatal Python error: number {number}\n")
        if seen_by_supervisor:
            record_death(search.store, search.study, DeadWorker(name=f"worker-{number}", cause=cause))
    claim = make_worker(search, name="last").claimer.claim()
    assert claim is not None
    first = read_trials(search.study)[0]
    if fatal is None:
        assert claim.trial.number == 0
    else:
        assert claim.trial.number == 1
        assert first.state == "fail"
        assert first.end["reason"].startswith(f"its worker died {fatal} times in epoch 1 while the supervisor lived: {cause} after ")
        assert first.end["traceback"] == f"Fatal Python error: number {fatal - 1}\n"


def test_a_death_is_recorded_although_another_worker_has_the_trial_by_now(
    searched: Callable[..., Search], make_worker: Callable[..., Worker]
) -> None:
    search = searched()
    dead = make_worker(search, name="dead").claimer.claim()
    assert dead is not None
    dead.lease.release()
    heir = make_worker(search, name="heir").claimer.claim()
    assert heir is not None
    record_death(search.store, search.study, DeadWorker(name="dead", cause="SIGKILL"))
    record_death(search.store, search.study, DeadWorker(name="unknown", cause="SIGKILL"))
    (death,) = read_deaths(search.study.trials[0])
    assert (death.worker, death.cause, death.epochs) == ("dead", "SIGKILL", 0)


def test_failures_are_in_the_order_of_their_numbers_and_not_of_the_clock() -> None:
    def trial(number: int, state: TrialState, hour: int, reason: str = "", place: str = "") -> FrozenTrial:
        attempts = [{"run": "run"}]
        made = create_trial(
            state=state,
            value=0.5 if state == TrialState.COMPLETE else None,
            user_attrs={TrialKey.ATTEMPTS: attempts, TrialKey.END: {"reason": reason, "place": place}},
        )
        made.number, made.datetime_complete = number, datetime(2026, 10, 25, hour)
        return made

    fail, complete = TrialState.FAIL, TrialState.COMPLETE
    failed = [trial(number, fail, 3, f"ValueError: lr is {number}", "line 7") for number in (0, 1)]
    good = [trial(number, complete, 3) for number in (2, 3, 4, 5, 6)]
    late = trial(7, fail, 2, "ValueError: lr is 7", "line 7")  # the clock was set back
    refuse_repeated_failure("small", [*failed, *good, late], "run")
    others = [trial(number, fail, 1, f"ValueError: lr is {number}", "line 7") for number in (8, 9)]
    with pytest.raises(StudyStoppedError, match="trials 7, 8, 9 failed in the same way: ValueError: lr is 9"):
        refuse_repeated_failure("small", [*failed, *good, late, *others], "run")
    elsewhere = trial(9, fail, 1, "ValueError: lr is 9", "line 8")
    refuse_repeated_failure("small", [*failed, *good, late, others[0], elsewhere], "run")


def test_the_same_failure_three_times_in_a_row_stops_the_study(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    with pytest.raises(StudyStoppedError, match="trials 0, 1, 2 failed in the same way: RuntimeError: the same bug"):
        make_worker(search, make_fake_trainer(failing)).work()
    assert len(read_trials(search.study)) == 3


def test_failures_of_an_earlier_run_stop_nothing(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    with pytest.raises(StudyStoppedError):
        make_worker(search, make_fake_trainer(failing), run="before").work()
    assert make_worker(search, run="after").work() == 5


def test_no_trial_starts_when_the_time_is_spent(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched(("trials = 8", 'trials = 8\ntime = "1m"'))
    assert make_worker(search, now=lambda: 59.0).claimer.claim() is not None
    # The baseline waits in the queue and counts already; only new trials are refused.
    assert make_worker(search, now=lambda: 60.0).claimer.claim() is None


def test_a_clock_that_jumps_changes_nothing(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searched(("trials = 8", 'trials = 8\ntime = "1m"'))
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert make_worker(search).work() == 8


def test_only_the_requested_trial_is_claimed(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    search.study.enqueue_trial({"model": "cnn", "optimizer": "adam", "epochs": 2, "cnn.filters1": 8, "adam.lr": 0.01})
    assert make_worker(search, only_trial=1).work() == 1
    assert [trial.state for trial in read_trials(search.study)] == ["waiting", "complete"]


def test_a_trial_by_hand_is_left_to_its_own_worker(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    number, lease = add_trial(search, {"model": "cnn", "optimizer": "adam", "epochs": 2}, base=None)
    others = make_worker(search, name="other")
    assert others.work() == 7
    assert read_trials(search.study)[number].state == "waiting"
    assert make_worker(search, only_trial=number).work() == 1
    lease.release()


def test_an_abandoned_trial_by_hand_is_claimed(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    number, lease = add_trial(search, {"model": "cnn", "optimizer": "adam", "epochs": 2}, base=None)
    lease.release()
    make_worker(search).work()
    assert read_trials(search.study)[number].state == "complete"


def test_a_point_drawn_under_a_lease_that_was_lost_is_not_written(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(searched())
    written: list[dict[str, Any]] = []

    def lost_once(lease: Lease) -> None:
        written.append(dict(worker.store.rdb.get_all_trials(worker.study._study_id)[0].params))
        if len(written) == 1:
            raise LeaseLostError("lost")

    monkeypatch.setattr("hpsearch.search.claim.require_held", lost_once)
    claim = worker.claimer.claim()
    assert claim is not None
    assert claim.trial.number == 0
    assert written == [{}, {}]
    stored = worker.store.rdb.get_trial(claim.trial._trial_id)
    assert stored.params == claim.trial.params
    assert len(stored.user_attrs[TrialKey.ATTEMPTS]) == 2
    claim.lease.release()


def test_a_deleted_study_is_reported(searched: Callable[..., Search], make_worker: Callable[..., Worker], workspace: Workspace) -> None:
    search = searched()
    worker = make_worker(search)
    workspace.open().delete("small")
    gone = pytest.raises(StudyNotFoundError, match="'small', or a trial of it, is gone")
    with gone, worker.claimer.loaded.report_deletion():
        worker.work()


def test_a_study_deleted_during_a_trial_is_reported(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], workspace: Workspace
) -> None:
    def deleting(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        workspace.open().delete("small")
        yield from make_fake_trainer().train(config, checkpoint, owner, rungs)

    search = searched()
    with pytest.raises(StudyNotFoundError, match="is gone"):
        make_worker(search, make_fake_trainer(deleting)).work()


def test_a_study_deleted_at_any_moment_is_reported(
    searched: Callable[..., Search], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpsearch.workflows.worker_process.load_trainer", lambda file, workspace, *, repeats: make_fake_trainer())
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    # Read at every check, so that the number of reads does not depend on the speed of the machine.
    monkeypatch.setattr("hpsearch.workflows.worker_process.STOP_POLL", 0.0)
    asked = fatal = 0

    def begins(*_: Any) -> None:
        """A process with a connection is about to read or write."""
        nonlocal asked
        asked += 1
        if asked == fatal:
            workspace.open().delete("small")

    def work(moment: int) -> int:
        nonlocal asked, fatal
        search = searched(("trials = 8", "trials = 2"))
        asked, fatal = 0, moment
        with listening(begins):
            return run_worker(WorkerOrder(study=str(search.file.path), worker="w", runs=workspace.runs), storage=workspace.storage)

    assert work(0) == 2
    last = asked
    for moment in [*range(4, last, last // 8), last]:
        workspace.open().delete("small")
        with pytest.raises(StudyNotFoundError, match=r"no study 'small'|'small', or a trial of it, is gone"):
            work(moment)
        searched()


def test_a_study_deleted_and_made_again_is_not_taken_for_the_old_one(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], workspace: Workspace
) -> None:
    worker = make_worker(searched())
    workspace.open().delete("small")
    again = searched()
    with pytest.raises(StudyNotFoundError, match="is gone"):
        worker.work()
    assert [(trial.state, trial.attempts) for trial in read_trials(again.study)] == [("waiting", ())]


def test_a_worker_writes_no_epoch_into_a_study_made_again(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], workspace: Workspace
) -> None:
    again: list[Search] = []

    def making_again(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        if not again:
            workspace.open().delete("small")
            again.append(searched())
        yield from make_fake_trainer().train(config, checkpoint, owner, rungs)

    with pytest.raises(StudyNotFoundError, match="is gone"):
        make_worker(searched(), make_fake_trainer(making_again)).work()
    (trial,) = read_trials(again[0].study)
    assert (trial.state, trial.attempts, trial.epochs) == ("waiting", (), ())


def test_a_worker_that_starts_late_does_not_train_a_study_made_again(
    searched: Callable[..., Search], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    old = searched().identity
    workspace.open().delete("small")
    again = searched()
    assert again.identity != old
    order = WorkerOrder(study="small", identity=old, worker="w", runs=workspace.runs)
    with pytest.raises(StudyNotFoundError, match="is gone"):
        run_worker(order, storage=workspace.storage)
    assert read_trials(again.study)[0].attempts == ()


def test_a_supervisor_writes_nothing_into_a_study_made_again(
    searched: Callable[..., Search], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool:
        deaths = 0

        def start(self) -> None:
            workspace.open().delete("small")
            searched()

        def watch(self) -> Iterator[None]:
            yield

        def stop(self) -> None:
            pass

    monkeypatch.setattr(Search, "_worker_pool", lambda *_: Pool())
    monkeypatch.setattr("hpsearch.workflows.supervisor.SNAPSHOT_SECONDS", 0.0)
    with pytest.raises(StudyNotFoundError, match="is gone"):
        list(searched().run())
    assert read_study(workspace.open().load("small")).run_seconds == {}


def test_a_study_without_an_identity_gets_one_when_a_worker_starts(
    searched: Callable[..., Search], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpsearch.workflows.worker_process.load_trainer", lambda file, workspace, *, repeats: make_fake_trainer())
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    search = searched(("trials = 8", "trials = 1"))
    search.study.set_user_attr("hpsearch:identity:small", "")  # as if an earlier version had made it
    assert run_worker(WorkerOrder(study="small", worker="w", runs=workspace.runs), storage=workspace.storage) == 1
    assert read_identity(search.study)


@pytest.mark.slow
def test_several_launchers_on_an_empty_store_share_one_study_and_one_budget(
    workspace: Workspace, study_file: Callable[..., object], tmp_path: Path
) -> None:
    study_file(("trials = 8", "trials = 12"))
    command = [sys.executable, "-m", "tests.support.fake_trainer", "run", str(tmp_path / "small.toml"), "--workers", "1"]
    command += ["--runs", str(workspace.runs), "--storage", str(workspace.storage)]
    launchers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(launcher.communicate(timeout=120), launcher.returncode) for launcher in launchers]
    assert [code for _, code in ends] == [0] * 4, ends
    trials = workspace.open().load("small").trials
    assert len(trials) == 12
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
