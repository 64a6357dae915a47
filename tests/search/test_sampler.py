"""Rules of sampling."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.config.sections import Budget, Sampler
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import StudyStoppedError
from hpsearch.search.sampler import SpaceSampler
from hpsearch.search.worker import Worker
from hpsearch.storage.records import TrialKey
from hpsearch.workflows.supervisor import Search


class Cut(Exception):
    """Stands for the death of the process."""


class CutTrial:
    """A trial whose process dies before a given draw."""

    def __init__(self, trial: optuna.Trial, draws: int) -> None:
        self._trial, self._left = trial, draws

    def __getattr__(self, name: str) -> object:
        if self._left == 0:
            raise Cut
        self._left -= 1
        return getattr(self._trial, name)


def _study(file: StudyFile, accept: Callable[..., bool] = lambda values: True, **kind: object) -> optuna.Study:
    section = Sampler(**kind) if kind else file.sampler  # type: ignore[arg-type]
    sampler = SpaceSampler(file.space, section, file.budget, seed=file.seed, n_images=1000, accept=accept)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _run(study: optuna.Study, file: StudyFile, count: int) -> list[dict[str, object]]:
    for _ in range(count):
        trial = study.ask()
        trial.set_user_attr(TrialKey.ATTEMPTS, [])
        values = file.space.sample(trial)
        study.tell(trial, 0.5 + 0.1 * (values["model"] == "cnn") - 0.01 * float(values["epochs"]))
    return [trial.params for trial in study.trials]


def test_the_same_seed_draws_the_same_trials(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    assert _run(_study(file), file, 12) == _run(_study(file), file, 12)


def test_trials_of_another_program_change_no_draw(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    drawn = []
    for direction in (1, -1):
        study = _study(file)
        donor = _study(file)
        _run(donor, file, 8)
        for trial in donor.trials:
            value = direction * float(trial.params["epochs"])
            study.add_trial(optuna.trial.create_trial(value=value, params=trial.params, distributions=trial.distributions))
        drawn.append(_run(study, file, 12)[8:])
    assert drawn[0] == drawn[1]


def test_trials_of_one_study_differ(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    drawn = _run(_study(file), file, 12)
    assert len({str(sorted(params.items())) for params in drawn}) == 12


@pytest.mark.parametrize("finished", [0, 6])
def test_a_trial_killed_between_two_draws_draws_the_same_again(study_file: Callable[..., StudyFile], finished: int) -> None:
    file = study_file()
    whole = _study(file)
    _run(whole, file, finished + 1)
    expected = whole.trials[-1].params
    for draws in range(len(expected)):
        study = _study(file)
        _run(study, file, finished)
        trial = study.ask()
        with pytest.raises(Cut):
            file.space.sample(CutTrial(trial, draws))  # type: ignore[arg-type]
        study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        # Another process continues it, with a new sampler.
        study.sampler = SpaceSampler(file.space, file.sampler, file.budget, seed=file.seed, n_images=1000, accept=lambda values: True)
        again = study.ask()
        file.space.sample(again)
        assert again.number == trial.number
        assert again.params == expected


def test_counts_of_the_models_differ_by_at_most_one_at_any_time(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    study = _study(file)
    for count in range(1, 20):
        drawn = _run(study, file, 1)
        counts = Counter(params["model"] for params in drawn)
        assert max(counts.values()) - min(counts["cnn"], counts["lenet5"]) <= 1, count


def test_without_balance_a_sampler_may_prefer_a_model(study_file: Callable[..., StudyFile]) -> None:
    file = study_file(('balance = "model"', ""))
    counts = Counter(params["model"] for params in _run(_study(file), file, 40))
    assert counts["cnn"] - counts["lenet5"] > 1


def test_a_draw_beyond_the_limits_is_replaced_and_not_counted(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    study = _study(file, accept=lambda values: int(values.get("cnn.filters1", 0)) <= 16)
    drawn = _run(study, file, 20)
    assert len(drawn) == 20
    assert {params["cnn.filters1"] for params in drawn if "cnn.filters1" in params} <= {8, 16}


def test_limits_that_leave_nothing_are_reported(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    study = _study(file, accept=lambda values: False)
    with pytest.raises(StudyStoppedError, match=r"limits\.parameters"):
        file.space.sample(study.ask())


@pytest.mark.parametrize("kind", ["tpe", "random", "gp", "qmc"])
def test_every_sampler_draws_within_the_space(study_file: Callable[..., StudyFile], kind: str) -> None:
    flat = (
        ("[space.cnn]\nfilters1 = { int = [8, 64], step = 8 }", ""),
        ("[space.sgd]\nlr = { float = [1e-3, 1.0], log = true }", ""),
        ("[space.adam]\nlr = { float = [1e-4, 1e-1], log = true }", ""),
        ("epochs = { int = [2, 4] }", "epochs = { int = [2, 4] }\nlr = { float = [1e-3, 1e-1], log = true }"),
    )
    file = study_file(*flat)
    study = _study(file, kind=kind)
    for params in _run(study, file, 14):
        assert all(params[parameter.name] in parameter.distribution for parameter in file.space.searched if parameter.name in params)  # type: ignore[arg-type]


def test_sampling_prints_no_warning(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(_study(file), file, 12)


def test_startup_trials_are_shared_between_the_models(study_file: Callable[..., StudyFile]) -> None:
    file = study_file()
    sampler = SpaceSampler(
        file.space, Sampler(startup_trials=12), Budget(trials=60, balance="model"), seed=1, n_images=1000, accept=lambda values: True
    )
    assert sampler.inner(0, "", 0)._n_startup_trials == 6  # type: ignore[attr-defined]


def test_two_workers_never_train_the_same_point(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    first, second = make_worker(search, name="a"), make_worker(search, name="b")
    claims = [worker.claimer.claim() for worker in (first, second, first, second)]
    points = [replace(claim.config, seed=0).digest for claim in claims if claim]
    assert len(set(points)) == 4
