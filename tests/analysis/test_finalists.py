"""Rules of the finalists: which runs come next, which candidate wins, and how it is measured."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.analysis.finalists import Candidate, FinalistsResult, evaluate_finalists, next_round

SIZES = {"n_images": 10_000, "pool": 50_000}


def candidate(name: str, *, value: float = 0.9, parameters: int = 1000, is_baseline: bool = False) -> Candidate:
    return Candidate(name=name, trial=len(name), value=value, model="cnn", n_parameters=parameters, is_baseline=is_baseline)


BEST, SECOND, BASE = candidate("best"), candidate("second", parameters=500), candidate("base", is_baseline=True)
TRUTH = {"best": 0.92, "second": 0.915, "base": 0.85}


def score(name: str, repeat: int, truth: Mapping[str, float] = TRUTH) -> float:
    """A score that depends on the name and the repeat alone."""
    return truth[name] + 0.004 * (random.Random(f"{name} {repeat}").random() - 0.5) + 0.01 * random.Random(repeat).random()


def run_all(
    candidates: tuple[Candidate, ...], seeds: int, *, workers: int = 1, order: int = 0, truth: Mapping[str, float] = TRUTH
) -> dict[str, dict[int, float]]:
    """All runs of the plan, by several workers whose runs finish in random order."""
    chance = random.Random(order)
    scores: dict[str, dict[int, float]] = {}
    running: list[tuple[str, int]] = []
    for _ in range(1000):
        now = next_round(candidates, scores, seeds=seeds, **SIZES)
        free = [run for run in (*now.required_runs, *now.optional_runs) if run not in running]
        running += free[: workers - len(running)]
        if not now.required_runs and not running:
            return scores
        name, repeat = running.pop(chance.randrange(len(running)))
        scores.setdefault(name, {})[repeat] = score(name, repeat, truth)
    raise AssertionError("it never ends")


def verdict(candidates: tuple[Candidate, ...], seeds: int, scores: Mapping[str, Mapping[int, float]]) -> FinalistsResult:
    return evaluate_finalists(candidates, scores, seeds=seeds, **SIZES)


@given(workers=st.integers(1, 6), order=st.integers(0, 1000), seeds=st.integers(2, 9))
def test_the_verdict_does_not_depend_on_workers_or_their_order(workers: int, order: int, seeds: int) -> None:
    all_of_them = (BEST, SECOND, BASE)
    alone = verdict(all_of_them, seeds, run_all(all_of_them, seeds))
    parallel = verdict(all_of_them, seeds, run_all(all_of_them, seeds, workers=workers, order=order))
    assert parallel.is_over
    assert alone.winner is not None
    assert parallel.winner is not None
    assert parallel.winner.candidate == alone.winner.candidate
    assert parallel.winner.mean == alone.winner.mean
    assert parallel.selected_after == alone.selected_after


@given(values=st.lists(st.floats(0.8, 0.95), min_size=1, max_size=5), seeds=st.integers(2, 10), workers=st.integers(1, 4))
def test_no_candidate_runs_more_often_than_there_are_seeds(values: list[float], seeds: int, workers: int) -> None:
    candidates = tuple(candidate(f"trial {i}", is_baseline=i == 0) for i in range(len(values)))
    scores = run_all(candidates, seeds, workers=workers, truth={f"trial {i}": value for i, value in enumerate(values)})
    assert all(set(row) <= set(range(1, seeds + 1)) for row in scores.values())


def test_the_winners_mean_comes_from_seeds_that_did_not_select_it() -> None:
    scores = run_all((BEST, SECOND, BASE), 8)
    found = verdict((BEST, SECOND, BASE), 8, scores).winner
    assert found is not None
    assert found.mean.value == pytest.approx(sum(scores["best"][repeat] for repeat in (5, 6, 7, 8)) / 4)


def test_a_candidate_that_is_clearly_worse_runs_no_more() -> None:
    far = candidate("far")
    scores = run_all((BEST, SECOND, far, BASE), 8, truth={**TRUTH, "far": 0.7})
    assert set(scores["far"]) == {1, 2}
    found = next(each for each in verdict((BEST, SECOND, far, BASE), 8, scores).finalists if each.candidate is far)
    assert found.dropped_after == 2
    assert not found.is_tied


def test_the_baseline_is_measured_even_where_it_is_far_behind() -> None:
    scores = run_all((BEST, BASE), 8, truth={"best": 0.92, "base": 0.5})
    assert {5, 6, 7, 8} <= set(scores["base"])
    gain = verdict((BEST, BASE), 8, scores).gain
    assert gain is not None
    assert gain.value == pytest.approx(sum(scores["best"][r] - scores["base"][r] for r in (5, 6, 7, 8)) / 4)


def test_a_clear_winner_spares_the_seeds_that_would_have_chosen_it() -> None:
    scores = run_all((BEST, BASE), 8, truth={"best": 0.92, "base": 0.5})
    assert set(scores["best"]) == {1, 2, 5, 6, 7, 8}
    assert verdict((BEST, BASE), 8, scores).selected_after == 2


def test_candidates_that_the_seeds_cannot_distinguish_are_tied_and_the_smaller_is_named() -> None:
    found = verdict((BEST, SECOND), 4, run_all((BEST, SECOND), 4, truth={"best": 0.9, "second": 0.8995}))
    assert found.winner is not None
    assert len(found.tied) == 1
    assert found.smaller is (found.tied[0] if found.winner.candidate is BEST else None)


def test_a_baseline_that_wins_shows_no_gain() -> None:
    found = verdict((BEST, BASE), 4, run_all((BEST, BASE), 4, truth={"best": 0.7, "base": 0.9}))
    assert found.winner is not None
    assert found.winner.candidate is BASE
    assert found.gain is None


def test_optimism_is_the_search_score_minus_the_mean() -> None:
    found = verdict((candidate("best", value=0.95), BASE), 4, run_all((BEST, BASE), 4)).of_trial(len("best"))
    assert found is not None
    assert found.optimism == pytest.approx(0.95 - found.mean.value)


def test_a_candidate_that_cannot_be_trained_is_left_out() -> None:
    scores = {"best": {1: 0.9}}
    now = next_round((BEST, SECOND), scores, seeds=4, **SIZES, failed=frozenset({"second"}))
    assert all(name == "best" for name, _ in now.required_runs)
    assert evaluate_finalists((BEST, SECOND), scores, seeds=4, **SIZES, failed=frozenset({"second"})).failed == ("second",)


def test_before_the_first_run_there_is_no_verdict() -> None:
    found = verdict((BEST, BASE), 4, {})
    assert found.winner is None
    assert not found.is_over
    assert found.to_dict()["finalists"] == []


def test_idle_workers_start_runs_that_will_be_required() -> None:
    now = next_round((BEST, SECOND, BASE), {}, seeds=8, **SIZES)
    assert [repeat for _, repeat in now.required_runs] == [1, 1, 1]
    assert now.optional_runs[:2] == (("base", 5), ("base", 6))
