"""Rules of a PostgreSQL server that restarts, crashes, hangs or stays away."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from optuna.trial import TrialState

from hpsearch.config.epoch import Epoch
from hpsearch.config.study_file import StudyFile
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import OutageError, StorageError
from hpsearch.search.worker import Worker
from hpsearch.storage import postgres as server_module
from hpsearch.storage.records import TrialKey, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import prepare_search
from hpsearch.workflows.supervisor import Search
from tests.support import fake_trainer
from tests.support.db_snapshot import run_to_end, stored_trials
from tests.support.forkserver import ForkServer
from tests.support.postgres_server import PASSWORD, MissingPostgresError, Postgres

from .test_signals import started, states


@pytest.fixture
def server(postgres: Postgres) -> Iterator[Postgres]:
    """A server that a test may stop: it holds no databases of other tests."""
    del postgres  # skips the test without PostgreSQL
    try:
        own = Postgres()
    except MissingPostgresError as error:
        pytest.skip(str(error))
    with own:
        yield own


@pytest.fixture
def folder(folder: Path, server: Postgres) -> Path:
    (folder / "storage").write_text(server.database())
    return folder


@pytest.fixture
def any_storage() -> str:
    """Use only the test's own server."""
    return "sqlite"


@pytest.fixture
def search(server: Postgres, tmp_path: Path, study_file: Callable[..., StudyFile]) -> Search:
    """A prepared search on the server."""
    return prepare_search(study_file(), Workspace(runs=tmp_path / "runs", storage=server.database()))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_run_survives_a_restart_and_a_crash(
    server: Postgres, forkserver: ForkServer, folder: Path, output: Callable[[], str], mode: str
) -> None:
    run = started(forkserver, folder, "--workers", "2")
    server.stop(mode)
    time.sleep(1)
    server.start()
    assert run.wait(90) == 0
    assert states(folder) == ["COMPLETE"] * 8
    assert all([epoch["number"] for epoch in trial.epochs] == [step for step, _ in trial.reports] for trial in stored_trials(folder))
    assert "A worker died" not in output()
    assert "Traceback" not in output()
    logs = "".join(path.read_text() for path in (folder / "runs" / "small" / "logs").iterdir())
    assert "is down" in logs
    assert "Traceback" not in logs
    assert PASSWORD not in logs + output()


@pytest.mark.slow
def test_ctrl_c_works_while_the_server_is_away(server: Postgres, forkserver: ForkServer, folder: Path, output: Callable[[], str]) -> None:
    run = started(forkserver, folder, "--workers", "2")
    server.stop("immediate")
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) in (130, OutageError.exit_code)
    assert "Traceback" not in output()
    server.start()
    assert run_to_end(forkserver, folder) == 0
    assert states(folder) == ["COMPLETE"] * 8


def test_a_server_that_stays_away_ends_the_worker_and_nothing_is_lost(
    server: Postgres,
    search: Search,
    make_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    search.workspace.retry_policy.max_wait = 1.0

    def vanishing(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        for epoch in fake_trainer.train(config, checkpoint, owner, rungs):
            if epoch.number == 2:
                server.stop("immediate")
            yield epoch

    worker = make_worker(search, fake_trainer.make_fake_trainer(vanishing))
    with pytest.raises(OutageError) as raised:
        worker.work()
    assert raised.value.exit_code == 3
    assert "cannot be reached" in raised.value.message
    assert "the same command continues" in raised.value.hint
    assert PASSWORD not in str(raised.value)
    # The checkpoint holds the epoch that could not be stored; it is stored when the server is back.
    server.start()
    workspace = Workspace(runs=search.workspace.runs, storage=search.workspace.storage)
    again = prepare_search(search.file, workspace)
    assert make_worker(again).work() == 8
    trials = read_trials(again.study)
    assert [trial.state for trial in trials] == ["complete"] * 8
    assert [epoch.number for epoch in trials[0].epochs] == [1, 2, 3]


def test_a_silent_server_is_reported_and_waited_for(
    server: Postgres, search: Search, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "ANSWER_WAIT", 0.5)
    monkeypatch.setitem(server_module.CONNECTION_OPTIONS, "connect_timeout", 2)
    study = search.store.load("small")
    server.halt()
    threading.Timer(3, server.halt, [signal.SIGCONT]).start()
    with caplog.at_level(logging.WARNING):
        study.set_user_attr("output", "after all")
    assert "is down" in caplog.text
    assert search.store.load("small").user_attrs["output"] == "after all"


def test_a_worker_that_lost_its_lease_drops_the_trial_and_claims_it_again(
    server: Postgres,
    search: Search,
    make_worker: Callable[..., Worker],
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = str(search.workspace.storage).rsplit("/", 1)[1]
    lost = []

    def losing(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        for epoch in fake_trainer.train(config, checkpoint, owner, rungs):
            if epoch.number == 2 and not lost:
                lost.append(epoch)
                server.end_connections(database)
            yield epoch

    with caplog.at_level(logging.WARNING):
        assert make_worker(search, fake_trainer.make_fake_trainer(losing)).work() == 8
    assert "trial 0 was released: its lock was lost, so another worker may have taken it" in caplog.text
    trials = read_trials(search.study)
    assert [trial.state for trial in trials] == ["complete"] * 8
    assert [len(trial.attempts) for trial in trials] == [2] + [1] * 7


def test_a_worker_that_lost_its_lease_to_another_writes_nothing_more(
    server: Postgres,
    search: Search,
    make_worker: Callable[..., Worker],
) -> None:
    database = str(search.workspace.storage).rsplit("/", 1)[1]
    workspace = Workspace(runs=search.workspace.runs, storage=search.workspace.storage)
    heirs = []

    def losing(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        for epoch in fake_trainer.train(config, checkpoint, owner, rungs):
            if epoch.number == 1 and not heirs:
                server.end_connections(database)
                heir = make_worker(prepare_search(search.file, workspace), name="heir").claimer.claim()
                assert heir is not None
                heirs.append(heir)
            yield epoch

    make_worker(search, fake_trainer.make_fake_trainer(losing)).work()
    (heir,) = heirs
    stored_trial = search.store.rdb.get_trial(heir.trial._trial_id)
    assert stored_trial.state == TrialState.RUNNING  # another worker trains it
    assert TrialKey.EPOCHS not in stored_trial.user_attrs
    assert stored_trial.user_attrs[TrialKey.ATTEMPTS][-1]["worker"] == "heir"
    assert sum(trial.state == "complete" for trial in read_trials(search.study)) == 7


TIMEOUTS = ("idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout")
"""The timeouts of PostgreSQL 15. Version 17 has `transaction_timeout` too."""


def limit(server: Postgres, who: str) -> None:
    """Give a role or a database every timeout, of 0.3 seconds."""
    for name in TIMEOUTS:
        server.execute("postgres", f"ALTER {who} SET {name} = '300ms'")


def test_a_trial_trains_longer_than_the_roles_timeouts(
    server: Postgres, tmp_path: Path, study_file: Callable[..., StudyFile], make_worker: Callable[..., Worker]
) -> None:
    workspace = Workspace(runs=tmp_path / "runs", storage=server.database())
    limit(server, "ROLE hpsearch")
    search = prepare_search(study_file(), workspace)
    begun: list[str] = []

    def slow(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        begun.append(owner)
        assert len(begun) <= 8, "a trial began again"  # without a limit a trial could begin again for ever
        time.sleep(0.6)  # as a model that takes long to build
        yield from fake_trainer.train(config, checkpoint, owner, rungs)

    assert make_worker(search, fake_trainer.make_fake_trainer(slow)).work() == 8
    assert [(trial.state, len(trial.attempts)) for trial in read_trials(search.study)] == [("complete", 1)] * 8


def test_a_wait_for_a_lock_is_longer_than_the_roles_timeouts(server: Postgres) -> None:
    url = server.database()
    lease = Workspace(storage=url).locks.acquire("claim")
    assert lease is not None
    limit(server, "ROLE hpsearch")
    threading.Timer(0.9, lease.release).start()
    with Workspace(storage=url).locks.hold("claim"):
        assert Workspace(storage=url).locks.acquire("claim") is None


@pytest.mark.parametrize("who", ["ROLE hpsearch", "DATABASE db1"])
def test_no_timeout_of_a_role_or_a_database_applies(server: Postgres, who: str) -> None:
    database = Workspace(storage=server.database()).database
    assert isinstance(database, server_module.PostgresServer)
    limit(server, who)
    with database.connect() as connection:
        values = [connection.execute("SELECT current_setting(%s)", [name]).fetchone() for name in TIMEOUTS]
    assert values == [("0",)] * len(TIMEOUTS)


@pytest.mark.parametrize("state", ["57P05", "25P03", "25P04", "57014"])
def test_a_session_that_the_server_ends_by_a_timeout_is_waited_out(state: str) -> None:
    assert server_module.is_transient(psycopg.errors.lookup(state)("terminating connection"))


def test_too_many_connections_are_waited_for(search: Search) -> None:
    workspace = search.workspace.database
    assert isinstance(workspace, server_module.PostgresServer)
    held: list[object] = []

    def fill() -> None:
        while True:
            workspace.check(create=True)
            held.append(workspace.connect())

    with pytest.raises(StorageError, match=r"too many|connection slots") as raised:
        fill()
    assert "max_connections" in raised.value.hint
    threading.Timer(1, held.clear).start()
    assert Workspace(storage=search.workspace.storage, wait_for_server=True).open().study_names() == ["small"]
