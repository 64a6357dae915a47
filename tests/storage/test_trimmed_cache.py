"""What a worker keeps in memory of finished trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpsearch.config.study_file import StudyFile
from hpsearch.search.worker import Worker
from hpsearch.storage.records import UNUSED_BY_SEARCH, TrialKey, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import prepare_search
from hpsearch.workflows.supervisor import Search


@pytest.fixture
def done(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> Search:
    """A finished search."""
    search = searched(("trials = 8", "trials = 20"))
    make_worker(search).work()
    return search


def test_what_a_search_looks_at_is_kept(done: Search, workspace: Workspace) -> None:
    whole = workspace.open().load("small").get_trials(deepcopy=False)
    trimmed = workspace.open(trimmed=True).load("small").get_trials(deepcopy=False)
    for one, other in zip(whole, trimmed, strict=True):
        assert (one.number, one.state, one.values, one.params, one.distributions) == (
            other.number,
            other.state,
            other.values,
            other.params,
            other.distributions,
        )
        assert list(one.params) == list(other.params)
        assert one.intermediate_values == other.intermediate_values
        assert {*one.user_attrs} - {*other.user_attrs} == {*one.user_attrs} & UNUSED_BY_SEARCH
    assert {TrialKey.RUN, TrialKey.EPOCHS} <= UNUSED_BY_SEARCH


def test_rows_are_whole_wherever_they_are_read(done: Search, workspace: Workspace) -> None:
    rows = read_trials(workspace.open(trimmed=True).load("small"))
    assert rows == read_trials(workspace.open().load("small"))
    assert all(row.epochs and row.config for row in rows)


def test_what_trials_have_in_common_is_kept_once(done: Search, workspace: Workspace) -> None:
    trimmed = workspace.open(trimmed=True).load("small").get_trials(deepcopy=False)
    branches = {(trial.params["model"], trial.params["optimizer"]) for trial in trimmed}
    assert len({id(trial.distributions) for trial in trimmed}) <= len(branches)
    assert len({id(trial.user_attrs) for trial in trimmed if TrialKey.ORIGIN not in trial.user_attrs}) == 1


def test_a_trial_that_runs_is_whole(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(searched())
    claim = worker.claimer.claim()
    assert claim is not None
    claim.trial.set_user_attr(TrialKey.EPOCHS, "[]")
    (running,) = worker.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    assert running.user_attrs[TrialKey.EPOCHS] == "[]"
    claim.lease.release()


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("tpe", 'kind = "median"\nstartup_trials = 2\nwarmup_epochs = 1'), ("tpe", 'kind = "halving"'), ("random", 'kind = "hyperband"')],
    ids=["tpe-median", "tpe-halving", "random-hyperband"],
)
def test_a_search_takes_the_same_way_as_with_whole_trials(
    study_file: Callable[..., StudyFile], make_worker: Callable[..., Worker], tmp_path: Path, sampler: str, pruner: str
) -> None:
    startup = "startup_trials = 4" if sampler == "tpe" else ""
    file = study_file(
        ("trials = 8", "trials = 16"),
        ("startup_trials = 4", f'kind = "{sampler}"\n{startup}'),
        ('[pruner]\nkind = "none"', f"[pruner]\n{pruner}"),
    )
    ways = []
    for trimmed in (False, True):
        search = prepare_search(file, Workspace(runs=tmp_path / f"runs-{trimmed}", storage=f"sqlite:///{tmp_path}/{trimmed}.db"))
        make_worker(search, trimmed=trimmed).work()
        ways.append([(row.number, row.state, row.params, row.value, len(row.epochs)) for row in read_trials(search.study)])
    assert {state for _, state, *_ in ways[0]} == {"complete", "pruned"}
    assert ways[0] == ways[1]


def test_a_worker_that_joins_late_sees_what_one_from_the_start_sees(
    searched: Callable[..., Search], make_worker: Callable[..., Worker]
) -> None:
    search = searched()
    early = make_worker(search)
    early.study.get_trials()
    make_worker(search, name="other").work()
    late = make_worker(search, name="late")
    waiting = search.store.load("small")
    waiting.enqueue_trial({"model": "cnn"})
    for each in zip(early.study.get_trials(deepcopy=False), late.study.get_trials(deepcopy=False), strict=True):
        one, other = (vars(trial) for trial in each)
        assert one == other
    waiting.tell(waiting.ask(), 0.5)  # what was not over when it joined is read again
    assert late.study.get_trials()[-1].value == 0.5
