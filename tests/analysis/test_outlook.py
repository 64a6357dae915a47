"""What further trials are expected to bring, and which models are clearly behind."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from hpsearch.analysis.outlook import by_model, gain_of_doubling, look_ahead, trailing_models
from hpsearch.config.sections import MIN_TRIALS, MIN_TRIALS_OF_MODEL

IMAGES = 10_000


def falling(best: float, count: int, step: float = 0.001) -> list[float]:
    """Accuracies that fall in equal steps, in random order."""
    found = [best - step * rank for rank in range(count)]
    random.Random(1).shuffle(found)
    return found


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8, 11])
def test_the_gain_of_the_last_doubling_is_the_mean_over_all_halves(count: int) -> None:
    drawn = random.Random(count)
    values = [drawn.choice([0.5, 0.7, drawn.random()]) for _ in range(count)]
    best_of_halves = [max(half) for half in itertools.combinations(values, count // 2)]
    assert gain_of_doubling(values) == pytest.approx(max(values) - statistics.mean(best_of_halves), abs=1e-12)


def test_ten_thousand_trials_are_no_trouble() -> None:
    values = [rank / 10_000 for rank in range(10_000)]
    assert gain_of_doubling(values) == pytest.approx(1e-4, rel=0.01)  # half of them lack the best by one step on average


def test_an_outlook_needs_trials_and_compares_with_the_chance_of_the_images() -> None:
    assert look_ahead({"cnn": falling(0.9, MIN_TRIALS - 1)}, IMAGES) is None
    near = look_ahead({"cnn": falling(0.9, MIN_TRIALS // 2), "lenet5": falling(0.8995, MIN_TRIALS // 2)}, IMAGES)
    far = look_ahead({"cnn": falling(0.9, MIN_TRIALS, step=0.02)}, IMAGES)
    assert near is not None
    assert far is not None
    assert near.error == far.error == pytest.approx(0.003)
    assert near.is_small
    assert not far.is_small


def test_a_model_is_behind_only_if_as_many_trials_again_would_not_help() -> None:
    leader = falling(0.92, MIN_TRIALS_OF_MODEL)
    clearly = falling(0.89, MIN_TRIALS_OF_MODEL)
    (found,) = trailing_models({"cnn": leader, "lenet5": clearly}, IMAGES).values()
    assert (found.model, found.leader, found.trials, found.leader_best) == ("lenet5", "cnn", MIN_TRIALS_OF_MODEL, 0.92)
    assert trailing_models({"cnn": leader, "lenet5": falling(0.915, MIN_TRIALS_OF_MODEL)}, IMAGES) == {}
    assert trailing_models({"cnn": leader, "lenet5": clearly[1:]}, IMAGES) == {}
    # The same best accuracy, but it stands out from the rest: the next trials may stand out too.
    assert trailing_models({"cnn": leader, "lenet5": [0.89, *falling(0.83, MIN_TRIALS_OF_MODEL - 1)]}, IMAGES) == {}
    assert trailing_models({}, IMAGES) == {}


def test_trials_without_an_accuracy_are_left_out() -> None:
    assert by_model([("cnn", 0.5), ("cnn", None), ("lenet5", 0.4), ("", None)]) == {"cnn": [0.5], "lenet5": [0.4]}
