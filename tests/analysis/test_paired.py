"""Rules of paired scores: effects of repeats cancel, missing cells are allowed, and intervals have the right width."""

from __future__ import annotations

import numpy
import pytest
from scipy.stats import ttest_rel

from hpsearch.analysis.paired import TwoWayFit, mean_estimate

MANY = 10**9
"""A pool so large that splits hardly overlap."""
ONE = {1: 0.90, 2: 0.93, 3: 0.88, 4: 0.91}
OTHER = {1: 0.89, 2: 0.91, 3: 0.88, 4: 0.89}


def test_two_configurations_are_compared_as_by_the_paired_t_test() -> None:
    found = TwoWayFit({"one": ONE, "other": OTHER}, n_images=1000, pool=MANY).difference("one", "other")
    known = ttest_rel(list(ONE.values()), list(OTHER.values())).confidence_interval(0.95)
    assert found.value == pytest.approx(0.0125)
    assert found.interval == pytest.approx((known.low, known.high), abs=1e-6)


def test_the_luck_of_a_repeat_cancels() -> None:
    lucky = {repeat: {1: 0.05, 2: -0.03, 3: 0.02, 4: 0.0}[repeat] for repeat in ONE}
    scores = {"one": ONE, "other": OTHER}
    shifted = {name: {repeat: value + lucky[repeat] for repeat, value in row.items()} for name, row in scores.items()}
    plain, moved = (TwoWayFit(each, n_images=1000, pool=5000).difference("one", "other") for each in (scores, shifted))
    assert moved.value == pytest.approx(plain.value)
    assert moved.interval == pytest.approx(plain.interval)


def test_a_repeat_that_one_alone_ran_does_not_tell_the_two_apart() -> None:
    more = {**ONE, 5: 0.99}
    plain = TwoWayFit({"one": ONE, "other": OTHER}, n_images=1000, pool=5000).difference("one", "other")
    found = TwoWayFit({"one": more, "other": OTHER}, n_images=1000, pool=5000).difference("one", "other")
    assert found.value == pytest.approx(plain.value)


def test_splits_that_overlap_widen_the_interval() -> None:
    narrow, wide = (TwoWayFit({"one": ONE, "other": OTHER}, n_images=1000, pool=pool).difference("one", "other") for pool in (MANY, 2000))
    ratio = (wide.interval[1] - wide.value) / (narrow.interval[1] - narrow.value)
    assert ratio == pytest.approx(numpy.sqrt(1 + 4 * 1000 / 1000), rel=1e-4)


def test_a_single_repeat_is_judged_by_the_chance_of_its_images() -> None:
    found = TwoWayFit({"one": {1: 0.9}, "other": {1: 0.88}}, n_images=1000, pool=MANY).difference("one", "other")
    assert found.interval[1] - found.value == pytest.approx(1.96 * numpy.sqrt(2 * 0.89 * 0.11 / 1000), rel=1e-3)


def test_the_probability_of_being_best_follows_the_scores() -> None:
    fit = TwoWayFit(
        {"one": ONE, "same": {k: v + 1e-9 for k, v in ONE.items()}, "far": {k: v - 0.2 for k, v in OTHER.items()}}, n_images=1000, pool=5000
    )
    best = fit.best_probabilities(seed=0)
    assert sum(best.values()) == pytest.approx(1)
    assert best["far"] < 0.001
    assert best["one"] == pytest.approx(0.5, abs=0.02)
    assert best == fit.best_probabilities(seed=0)


def test_no_number_of_repeats_averages_out_the_images_that_all_share() -> None:
    values = [0.9] * 1000
    low, high = mean_estimate(values, n_images=100, pool=10_000).interval
    assert high - low == pytest.approx(2 * 1.96 * numpy.sqrt(0.9 * 0.1 / 10_000), rel=1e-3)


def test_other_scores_tell_of_the_spread_but_not_of_the_mean() -> None:
    alone = mean_estimate([0.90, 0.92], n_images=1000, pool=MANY)
    helped = mean_estimate([0.90, 0.92], others=[0.50, 0.52, 0.50, 0.52], n_images=1000, pool=MANY)
    assert helped.value == alone.value
    assert helped.interval[1] - helped.interval[0] < (alone.interval[1] - alone.interval[0]) / 3
