"""A store reads and writes trials as Optuna does, with fewer statements and transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hpsearch.search.worker import Worker
from hpsearch.storage.records import transaction
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import make_fake_trainer

OTHER_TRANSACTIONS = 6
"""Transactions of a trial besides one for each epoch: create, claim, sample, note the run, note the end, set the state."""


@pytest.fixture
def search(searched: Callable[..., Search]) -> Search:
    """A search whose baseline has started, so that the next trial is sampled."""
    search = searched()
    search.study.ask()
    return search


def as_optuna_reads(search: Search) -> list[dict[str, Any]]:
    return [plain(trial) for trial in RDBStorage.get_all_trials(search.store.rdb, search.study._study_id)]


def as_read(search: Search) -> list[dict[str, Any]]:
    return [plain(trial) for trial in search.study.get_trials()]


def plain(trial: FrozenTrial) -> dict[str, Any]:
    """Return all fields; NaN as text, since it does not equal itself."""
    fields = {name.strip("_"): value for name, value in vars(trial).items()}
    return {**fields, "order": list(trial.params), "intermediate_values": repr(trial.intermediate_values)}


def write_all(trial: optuna.Trial) -> None:
    trial.suggest_float("lr", 1e-3, 1.0, log=True)
    trial.suggest_categorical("model", ["cnn", "lenet5"])
    trial.set_user_attr("text", "a 'quoted' → word")
    trial.set_user_attr("text", "written over")
    trial.set_user_attr("list", [1, None, {"key": 0.5}])
    for step, value in enumerate((0.5, float("inf"), float("-inf"), float("nan"))):
        trial.report(value, step)
    trial.storage.set_trial_system_attr(trial._trial_id, "of a sampler", 3)


@pytest.mark.usefixtures("any_optuna")
def test_what_is_written_together_is_what_optuna_writes_one_by_one(search: Search) -> None:
    search.study.sampler = optuna.samplers.RandomSampler(0)
    ours, other = search.study.ask(), optuna.Study(search.file.name, search.store.rdb, optuna.samplers.RandomSampler(0)).ask()
    with transaction(ours):
        write_all(ours)
    write_all(other)
    one, two = as_optuna_reads(search)[-2:]
    own = ("number", "trial_id", "datetime_start")
    assert {key: value for key, value in one.items() if key not in own} == {key: value for key, value in two.items() if key not in own}
    assert one["user_attrs"] == {"text": "written over", "list": [1, None, {"key": 0.5}]}
    assert one["system_attrs"] == {"of a sampler": 3}
    assert one["order"] == ["lr", "model"]
    assert one["intermediate_values"] == "{0: 0.5, 1: inf, 2: -inf, 3: nan}"


@pytest.mark.usefixtures("any_optuna")
def test_trials_are_read_as_optuna_reads_them_however_they_go_on(search: Search) -> None:
    study = search.study
    for end in (TrialState.COMPLETE, None, TrialState.PRUNED, TrialState.FAIL):
        trial = study.ask()
        write_all(trial)
        assert as_read(search) == as_optuna_reads(search)
        assert plain(trial.storage.get_trial(trial._trial_id)) == as_optuna_reads(search)[-1]
        if end is not None:
            study.tell(trial, 0.5 if end == TrialState.COMPLETE else None, state=end)
    first = next(trial for trial in study.get_trials() if trial.state == TrialState.RUNNING)
    study.tell(first.number, 0.7)  # one that ended after some with a higher number
    assert as_read(search) == as_optuna_reads(search)


def test_nobody_reads_half_of_it_and_nothing_is_written_of_a_block_that_fails(search: Search) -> None:
    trial = search.study.ask()
    before = as_optuna_reads(search)

    def fails() -> None:
        with transaction(trial):
            write_all(trial)
            assert as_optuna_reads(search) == before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert as_optuna_reads(search) == before
    trial.set_user_attr("after it", True)
    assert as_optuna_reads(search)[-1]["user_attrs"] == {"after it": True}


@pytest.mark.usefixtures("any_optuna")
@pytest.mark.parametrize(
    "write", [lambda trial: trial.set_user_attr("key", 1), lambda trial: trial.report(0.5, 9)], ids=["attribute", "report"]
)
def test_a_trial_that_is_over_or_no_more_is_not_written_to(search: Search, write: Callable[[Any], None]) -> None:
    over, gone = search.study.ask(), search.study.ask()
    search.study.tell(over, 0.5)
    with pytest.raises(UpdateFinishedTrialError), transaction(over):
        write(over)
    search.store.delete("small")
    with pytest.raises(KeyError):
        write(gone)
    with pytest.raises(KeyError):
        gone.storage.get_trial(gone._trial_id)
    with pytest.raises(KeyError):
        search.study.get_trials()


@pytest.mark.usefixtures("any_optuna")
def test_another_kind_of_range_under_a_known_name_is_refused(search: Search, workspace: Workspace) -> None:
    search.study.ask().suggest_float("lr", 1e-3, 1.0)
    for study in (search.study, workspace.open().load("small")):
        study.get_trials()
        with pytest.raises(ValueError, match="different distribution kind"):
            study.ask().suggest_int("lr", 1, 3)


def test_a_trial_writes_one_transaction_an_epoch_and_few_besides(
    searched: Callable[..., Search], make_worker: Callable[..., Worker]
) -> None:
    search = searched(("trials = 8", "trials = 20"), ("int = [2, 4]", "int = [4, 4]"), ("epochs = 3\n", "epochs = 4\n"))
    worker = make_worker(search, make_fake_trainer())
    wrote, transactions = False, 0

    def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal wrote
        wrote |= statement.split(maxsplit=1)[0] in ("INSERT", "UPDATE")

    def committed(connection: Any) -> None:
        nonlocal wrote, transactions
        transactions, wrote = transactions + wrote, False

    sqlalchemy.event.listen(worker.store.rdb.engine, "after_cursor_execute", executed)
    sqlalchemy.event.listen(worker.store.rdb.engine, "commit", committed)
    assert worker.work() == 20
    assert 20 * (4 + 1) < transactions <= 20 * (4 + OTHER_TRANSACTIONS)
