"""A budget that counts epochs: what ends a search is what people can afford, and pruning buys more trials."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.epoch import Epoch
from hpsearch.config.fairness import wasted_settings
from hpsearch.config.sections import Budget, Pruner
from hpsearch.config.study_file import StudyFile, parse_study_file
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import StudyFileError
from hpsearch.search.budget import budget_allows_trial
from hpsearch.search.worker import Trainer, Worker
from hpsearch.storage.records import TrialKey, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeats import prepare_finalists
from hpsearch.workflows.run import find_study_file, prepare_search
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import make_fake_trainer
from tests.support.small_study import hpsearch

EPOCHS_ONLY = ("trials = 8", "epochs = 20")
LONGEST = 4
"""The study draws 2 to 4 epochs."""


def epochs_of(search: Search) -> list[int]:
    return [len(trial.epochs) for trial in read_trials(search.study)]


def test_no_trial_starts_when_the_epochs_are_spent(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched(EPOCHS_ONLY)
    make_worker(search).work()
    epochs = epochs_of(search)
    assert sum(epochs[:-1]) < 20 <= sum(epochs) < 20 + LONGEST
    assert search.is_spent
    again = searched(("trials = 8", "epochs = 20"), epochs=30)
    make_worker(again).work()
    assert epochs_of(again)[: len(epochs)] == epochs
    assert 30 <= sum(epochs_of(again)) < 30 + LONGEST


def test_what_is_spent_first_ends_the_search(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    few_trials = searched(("trials = 8", "trials = 3\nepochs = 100"))
    assert make_worker(few_trials).work() == 3
    few_epochs = searched(("trials = 8", "trials = 100\nepochs = 6"), ('name = "small"', 'name = "second"'))
    assert make_worker(few_epochs).work() < 5
    assert 6 <= sum(epochs_of(few_epochs)) < 6 + LONGEST


def test_epochs_that_pruning_saves_go_to_more_trials(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    pruning = ('kind = "none"', 'kind = "percentile"\npercentile = 20\nstartup_trials = 1\nwarmup_epochs = 0')
    searches = [
        searched(("trials = 8", "epochs = 40"), ('name = "small"', f'name = "study{number}"'), *changes)
        for number, changes in enumerate(((), (pruning,)))
    ]
    for search in searches:
        make_worker(search).work()
        assert 40 <= sum(epochs_of(search)) < 40 + LONGEST
    whole, pruned = (read_trials(search.study) for search in searches)
    assert any(trial.state == "pruned" for trial in pruned)
    assert len(pruned) > len(whole)


def dies_in_its_second_trial() -> Trainer:
    trainer, starts = make_fake_trainer(), itertools.count(1)

    def train(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch]:
        if next(starts) == 2:
            raise KeyboardInterrupt
        return trainer.train(config, checkpoint, owner, rungs)

    return replace(trainer, train=train)


def test_an_interrupted_search_spends_the_same_epochs_on_the_same_trials(
    searched: Callable[..., Search], make_worker: Callable[..., Worker]
) -> None:
    whole = searched(EPOCHS_ONLY)
    make_worker(whole).work()
    cut = searched(EPOCHS_ONLY, ('name = "small"', 'name = "second"'))
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            make_worker(cut, dies_in_its_second_trial()).work()
    make_worker(cut).work()
    assert [trial.params for trial in read_trials(cut.study)] == [trial.params for trial in read_trials(whole.study)]
    assert epochs_of(cut) == epochs_of(whole)


def trial(state: TrialState, epochs: int, *, planned: int | None = None, fixed: bool = False) -> FrozenTrial:
    values = {} if planned is None or fixed else {"epochs": planned}
    return optuna.trial.create_trial(
        state=state,
        value=0.5 if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params=values,
        distributions={"epochs": optuna.distributions.IntDistribution(2, 4)} if values else {},
        intermediate_values=dict.fromkeys(range(1, epochs + 1), 0.5),
        system_attrs={"fixed_params": {"epochs": planned}} if fixed else {},
        user_attrs={TrialKey.ATTEMPTS: []},
    )


@pytest.mark.parametrize(
    ("trials", "counted"),
    [
        ([trial(TrialState.COMPLETE, 3, planned=4), trial(TrialState.PRUNED, 1, planned=4), trial(TrialState.FAIL, 2, planned=4)], 6),
        ([trial(TrialState.RUNNING, 1, planned=3)], 3),
        ([trial(TrialState.RUNNING, 0)], LONGEST),
        ([trial(TrialState.WAITING, 0, planned=2, fixed=True), trial(TrialState.WAITING, 1, planned=3)], 5),
        ([], 0),
    ],
    ids=["ended", "running", "not drawn yet", "waiting", "none"],
)
def test_trials_that_have_not_ended_count_as_if_they_run_to_their_end(
    study_file: Callable[..., StudyFile], trials: Sequence[FrozenTrial], counted: int
) -> None:
    space = study_file().space
    assert budget_allows_trial(trials, Budget(epochs=counted + 1), 1000, space)
    assert counted == 0 or not budget_allows_trial(trials, Budget(epochs=counted), 1000, space)
    assert budget_allows_trial(trials, Budget(trials=9), 1000, space)
    assert not budget_allows_trial(trials, Budget(trials=max(1, len(trials))), 1000, space) or not trials


def test_failures_without_an_epoch_end_too(study_file: Callable[..., StudyFile]) -> None:
    failed = [trial(TrialState.FAIL, 0) for _ in range(5)]
    assert not budget_allows_trial(failed, Budget(epochs=5), 1000, study_file().space)


def test_a_budget_suffices_for_the_longest_trials(study_file: Callable[..., StudyFile]) -> None:
    space = study_file().space
    assert [budget.min_trials(space.max_epochs) for budget in (Budget(trials=8), Budget(epochs=9), Budget(trials=2, epochs=9))] == [8, 3, 2]


def test_warnings_count_what_a_budget_of_epochs_allows(study_file: Callable[..., StudyFile]) -> None:
    file = replace(study_file(), pruner=Pruner(kind="median", startup_trials=3))
    assert wasted_settings(file, Budget(epochs=9)) == ()  # three trials of two epochs end before the budget does
    (warning,) = wasted_settings(file, Budget(epochs=3))
    assert "it waits for 3 complete trials, but the budget is 3 epochs." in warning


def test_a_budget_of_nothing_is_refused(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    for text in ("", 'time = "1h"'):
        with pytest.raises(
            StudyFileError, match=r"small\.toml: budget: needs `trials` or `epochs`: without them the search would never end"
        ):
            parse_study_file(file.text.replace("trials = 8", text), path=file.path)
    with pytest.raises(StudyFileError, match=r"small\.toml: budget\.epochs: must be at least 1, but got 0"):
        parse_study_file(file.text.replace("trials = 8", "epochs = 0"), path=file.path)


def test_repeats_have_their_own_budget(searched: Callable[..., Search], make_worker: Callable[..., Worker], workspace: Workspace) -> None:
    make_worker(searched(EPOCHS_ONLY)).work()
    finalists = prepare_finalists(find_study_file("small", workspace), workspace, top=2, seeds=2)
    assert (finalists.budget.trials, finalists.budget.epochs) == (6, None)
    make_worker(finalists).work()
    assert finalists.is_spent or all(each.is_finished for each in read_trials(finalists.study))
    assert prepare_search(find_study_file("small", workspace), workspace).budget.epochs == 20


@pytest.mark.slow
def test_the_commands_speak_of_epochs(folder: Path) -> None:
    study = folder / "small.toml"
    study.write_text(study.read_text().replace("trials = 8", "epochs = 20"))
    assert "\n20 epochs by tpe, " in hpsearch(folder, "check", "small.toml").stdout
    done = hpsearch(folder, "run", "small.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert ", no pruner, 20 epochs.\n" in done.stderr
    assert "hpsearch run small --epochs 40    (continues the search)" in done.stdout
    again = hpsearch(folder, "run", "small")
    assert "The budget of 20 epochs is spent. --epochs allows more.\n" in again.stderr
    more = hpsearch(folder, "run", "small", "--epochs", "26")
    assert more.returncode == 0, more.stderr
    assert "26 epochs.\n" in more.stderr
    watched = hpsearch(folder, "show", "small", "--watch")
    search = prepare_search(find_study_file("small", Workspace(runs=folder / "runs")), Workspace(runs=folder / "runs"))
    spent = sum(epochs_of(search))
    assert 26 <= spent < 26 + LONGEST
    assert f"small: {spent} of 20 epochs are trained, {len(epochs_of(search))} trials ended" in watched.stderr
