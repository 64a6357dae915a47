"""The adapter notices a changed Optuna, and a search works without Optuna's private parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from optuna.storages import _CachedStorage
from optuna.storages._rdb import models

from hpsearch.search.worker import Worker
from hpsearch.storage.optuna_internals import TRIAL_COLUMNS, find_differences, optuna_is_known
from hpsearch.storage.records import read_trials
from hpsearch.storage.trial_cache import BatchingCache, PlainCache, TrimmedCache
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.supervisor import Search


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    optuna_is_known.cache_clear()
    yield
    optuna_is_known.cache_clear()


def other_add(self: Any, study_id: int) -> None: ...


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "column": lambda patch: patch.setitem(TRIAL_COLUMNS, "TrialParamModel", ("another_name",)),
    "table": lambda patch: patch.delattr(models, "TrialUserAttributeModel"),
    "class": lambda patch: patch.delattr(models, "StudyModel"),
    "constructor": lambda patch: patch.setattr(_CachedStorage, "__init__", lambda self, backend, size: None),
    "method": lambda patch: patch.delattr(_CachedStorage, "_get_cached_trial"),
    "signature": lambda patch: patch.setattr(_CachedStorage, "_add_trials_to_cache", other_add),
    "attribute": lambda patch: patch.setattr(_CachedStorage, "__init__", lambda self, backend: None),
}


def test_the_installed_optuna_is_as_expected(workspace: Workspace) -> None:
    assert list(find_differences()) == []
    assert type(workspace.open(create=True).storage) is BatchingCache
    assert type(workspace.open(trimmed=True).storage) is TrimmedCache


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_optuna_is_found_and_said_once(change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    CHANGES[change](monkeypatch)
    with caplog.at_level(logging.WARNING, "hpsearch"):
        assert not optuna_is_known()
        assert not optuna_is_known()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "slower" in caplog.text


@pytest.mark.usefixtures("unknown_optuna")
def test_a_search_takes_the_same_way_with_optunas_own_cache(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searched(("trials = 8", "trials = 12"))
    worker = make_worker(search)
    assert type(worker.store.storage) is PlainCache
    assert worker.work() == 12
    rows = read_trials(search.study)
    monkeypatch.undo()
    assert {row.state for row in rows} == {"complete"}
    assert all(row.epochs and row.config for row in rows)
    assert read_trials(search.workspace.open().load("small")) == rows
    search.store.delete("small")
    again = searched(("trials = 8", "trials = 12"))
    make_worker(again).work()
    assert [(row.params, row.value) for row in read_trials(again.study)] == [(row.params, row.value) for row in rows]
