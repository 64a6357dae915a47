"""Rules of ranks, intervals and unresolved differences."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.analysis.leaderboard import make_leaderboard, rank
from hpsearch.analysis.metrics import difference_margin, wilson_interval
from hpsearch.config.space_parser import configure
from hpsearch.storage.records import TrialKey, TrialRow
from tests.support.fake_trainer import fake_epoch


def _trial(
    number: int, value: float | None, *, state: str = "complete", parameters: int = 1000, epochs: int = 3, **changes: Any
) -> TrialRow:
    config = configure(model="lenet5", epochs=4)
    fields: dict[str, Any] = {
        "number": number,
        "state": state,
        "value": value,
        "params": {"model": "lenet5"},
        "config": config,
        "run": {},
        "epochs": tuple(fake_epoch(config, each, seconds=10.0) for each in range(1, epochs + 1)),
        "origin": "",
        "n_parameters": parameters,
        "flops": 1,
        "attempts": (),
        "end": {},
        "started": None,
        "finished": None,
        "copy_of": None,
    }
    return TrialRow(**{**fields, **changes})


def test_the_wilson_interval_is_that_of_the_literature() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_an_interval_stays_within_0_and_1() -> None:
    assert wilson_interval(0.0, 10)[0] == pytest.approx(0.0)
    assert wilson_interval(1.0, 10)[1] == pytest.approx(1.0)
    assert all(0 <= bound <= 1 for share in (0.0, 0.5, 1.0) for bound in wilson_interval(share, 3))


def test_the_margin_is_that_of_two_independent_shares() -> None:
    assert difference_margin(0.9, 10_000) == pytest.approx(1.96 * math.sqrt(2 * 0.9 * 0.1 / 10_000), rel=1e-4)


def test_complete_trials_are_ranked_and_others_counted() -> None:
    board = make_leaderboard(
        [_trial(0, 0.8), _trial(1, 0.9), _trial(2, 0.95, state="pruned"), _trial(3, None, state="fail"), _trial(4, None, state="running")],
        validation_images=10_000,
    )
    assert [ranked.trial.number for ranked in board.ranking] == [1, 0]
    assert board.counts == {"complete": 2, "pruned": 1, "fail": 1, "running": 1, "paused": 0, "waiting": 0}


def test_ties_go_to_the_smaller_model_and_then_to_the_earlier_trial() -> None:
    trials = [_trial(0, 0.9, parameters=500), _trial(1, 0.9, parameters=100), _trial(2, 0.95), _trial(3, 0.9, parameters=100)]
    assert [trial.number for trial in rank(trials)] == [2, 1, 3, 0]


def test_stored_trials_are_ranked_as_their_rows_are() -> None:
    study = optuna.create_study(direction="maximize")
    for n_parameters, value in ((500, 0.9), (100, 0.9), (None, 0.9), (900, 0.95), (100, 0.9)):
        attrs = {} if n_parameters is None else {TrialKey.N_PARAMETERS: n_parameters}
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attrs))
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, value=0.99))
    assert (
        [trial.number for trial in rank(study.trials)]
        == [trial.number for trial in rank(map(TrialRow.from_trial, study.trials))]
        == [3, 1, 4, 0, 2]
    )


def test_a_trial_within_the_margin_of_the_best_is_unresolved() -> None:
    margin = difference_margin(0.9, 10_000)
    board = make_leaderboard([_trial(0, 0.9), _trial(1, 0.9 - 0.99 * margin), _trial(2, 0.9 - 1.01 * margin)], validation_images=10_000)
    assert [ranked.trial.number for ranked in board.unresolved] == [0, 1]


def test_the_smallest_of_the_unresolved_is_named() -> None:
    board = make_leaderboard(
        [_trial(0, 0.9, parameters=900), _trial(1, 0.899, parameters=100), _trial(2, 0.5, parameters=1)], validation_images=10_000
    )
    assert board.smallest is not None
    assert board.smallest.trial.number == 1


def test_a_gain_within_the_margin_is_not_shown() -> None:
    near = make_leaderboard([_trial(0, 0.9, origin="baseline"), _trial(1, 0.901)], validation_images=10_000)
    far = make_leaderboard([_trial(0, 0.9, origin="baseline"), _trial(1, 0.93)], validation_images=10_000)
    assert near.gain is not None
    assert far.gain is not None
    assert not near.gain.is_significant
    assert far.gain.is_significant
    assert far.gain.difference == pytest.approx(0.03)


def test_without_a_complete_baseline_there_is_no_gain() -> None:
    assert make_leaderboard([_trial(0, 0.9)], validation_images=100).gain is None


def test_pruning_saved_the_epochs_that_were_not_run() -> None:
    board = make_leaderboard([_trial(0, 0.9, epochs=4), _trial(1, 0.4, state="pruned", epochs=1)], validation_images=100)
    assert board.saved_seconds == pytest.approx(30.0)
    assert board.seconds == pytest.approx(50.0)


def test_a_study_without_trials_has_an_empty_leaderboard() -> None:
    board = make_leaderboard([], validation_images=100)
    assert board.best is None
    assert board.smallest is None
    assert board.to_dict()["leaderboard"] == []
