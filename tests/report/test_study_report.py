"""Rules of the report of a study."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hpsearch.analysis.finalists import Candidate, evaluate_finalists
from hpsearch.analysis.leaderboard import make_leaderboard
from hpsearch.config.paths import StudyPaths
from hpsearch.report.sections.summary import rivals
from hpsearch.report.study_report import CHAPTERS, study_report
from hpsearch.report.study_results import StudyResults, read_results
from tests.support.stored_study import every_third_pruned, leave_predictions, stored_study

NOW = datetime(2026, 3, 2)
LARGEST_REPORT = 8_000_000
"""Bytes: what 500 trials may take. Those of 2,000 with 20 epochs each may take half as much again, and do not need to."""

Read = Callable[..., StudyResults]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Makes a study, leaves predictions of its first trials, and reads it."""

    def make(*, predictions: int = 0, **options: Any) -> StudyResults:
        study = stored_study(tmp_path, **options)
        paths = StudyPaths(tmp_path / study.study_name)
        for number in range(predictions):
            leave_predictions(paths.trial(number).predictions, seed=number % 2)
        return read_results(study, paths)

    return make


def words(html: str) -> str:
    """The page's text without its scripts."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)))


def report(*studies: StudyResults) -> str:
    return study_report(studies, at=NOW)


def test_every_section_is_there_in_a_readers_order(read: Read) -> None:
    html = report(read(predictions=12, state=every_third_pruned))
    places = [html.index(f'<section id="{name}"') for name, *_ in CHAPTERS]
    assert places == sorted(places)


def test_the_winner_is_the_leaderboards(read: Read) -> None:
    results = read(trials=20, predictions=20)
    assert results.best is not None
    said = words(report(results))
    first = results.board.to_dict()["leaderboard"][0]
    assert f"Best: trial {first['trial']} ({first['model']}) classifies {100 * first['val_accuracy']:.2f} %" in said


@pytest.mark.parametrize(("parameters", "said"), [(121_930, "96 fewer"), (61_013, "50 % fewer")])
def test_what_a_tied_trial_saves_is_never_nothing(read: Read, parameters: int, said: str) -> None:
    results = read(trials=2)
    first, second = (replace(trial, value=0.9, n_parameters=122_026) for trial in results.trials)
    board = make_leaderboard([first, replace(second, value=0.899, n_parameters=parameters)], validation_images=10_000)
    assert board.best is not None
    assert rivals(replace(results, board=board), board.best).endswith(f"with {parameters:,} parameters, {said}.")


def test_models_are_compared_on_the_same_images(read: Read) -> None:
    said = words(report(read(predictions=12)))
    assert "McNemar" in said
    assert "Difference of recall: cnn less lenet5" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "small has no trials yet"),
        ({"trials": 1}, "It is the only complete trial."),
        ({"models": ("cnn",)}, "Only one model was searched, cnn"),
        ({"state": lambda number: TrialState.PRUNED}, "All 12 trials of small were pruned"),
        ({"state": lambda number: TrialState.FAIL, "end": {"reason": "out of memory: 3 GB"}}, "All 12 trials of small failed"),
        (
            {"state": lambda number: TrialState.FAIL if number else TrialState.PRUNED},
            "No trial of small is complete yet: 1 pruned, 11 failed",
        ),
        ({"end": {"diverged": True}}, "Every complete trial diverged"),
    ],
    ids=["none", "one", "one model", "all pruned", "all failed", "none complete", "all diverged"],
)
def test_a_study_without_a_full_answer_gives_a_page_that_says_so(read: Read, options: dict[str, Any], said: str) -> None:
    html = report(read(**options))
    assert said in words(html)
    empty = [title for title, rest in re.findall(r"<h2[^>]*>(.*?)</h2>(.*?)</section>", html, flags=re.DOTALL) if not words(rest).strip()]
    assert not empty
    assert html.count("<h2") == html.count("</h2>") >= len(CHAPTERS)


def test_one_trial_is_not_several(read: Read) -> None:
    assert "cnn on no_images, 1 trial (1 complete)" in words(report(read(trials=1)))


def test_what_costs_the_same_is_not_said_to_cost_1_0_times_as_much(read: Read) -> None:
    said = words(report(read(trials=30)))
    assert "about as many FLOPs an image for +" in said
    assert "1.0 times" not in said


def test_missing_predictions_are_named(read: Read) -> None:
    assert "The predictions of trial" in words(report(read()))


def test_failed_trials_stand_with_their_reasons(read: Read) -> None:
    said = words(
        report(read(state=lambda number: TrialState.FAIL if number == 3 else TrialState.COMPLETE, end={"reason": "out of memory: 3 GB"}))
    )
    assert "out of memory: 3 GB" in said


def test_too_few_trials_for_importances_are_warned_of(read: Read) -> None:
    assert "Only 15 complete trials of cnn" in words(report(read(trials=30)))
    assert "cnn has 5 complete trials; importances are computed from 10 on" in words(report(read(trials=10)))


def test_several_studies_stand_side_by_side(read: Read) -> None:
    said = words(report(read(name="one"), read(name="two")))
    assert "The studies side by side" in said
    assert "these studies may be compared" in said


def test_studies_that_cannot_be_compared_are_named_with_what_differs(read: Read) -> None:
    other = read(name="two", trials=8, epochs=5)
    said = words(report(read(name="one"), other))
    assert "read their differences with care" in said
    assert "Other number of trials: one has 12; two has 8." in said
    assert "Other longest training: one has 3 epochs; two has 5 epochs." in said


def test_the_finalists_name_the_winner_where_they_have_run(tmp_path: Path) -> None:
    candidates = [
        Candidate(name=f"trial {number}", trial=number, value=0.9, model="cnn", n_parameters=1000, is_baseline=number == 0)
        for number in (0, 2, 4)
    ]
    scores = {
        "trial 0": dict.fromkeys((1, 2, 3, 4), 0.8),
        "trial 2": {1: 0.9, 2: 0.91, 3: 0.9, 4: 0.91},
        "trial 4": {1: 0.85, 2: 0.86, 3: 0.85, 4: 0.84},
    }
    verdict = evaluate_finalists(candidates, scores, seeds=4, n_images=1000, pool=5000)
    results = read_results(stored_study(tmp_path), StudyPaths(tmp_path), verdict=verdict)
    said = words(report(results))
    assert "Winner: trial 2, cnn, 90.50 %" in said
    assert "The finalists on fresh seeds and splits" in said
    assert "trial 2 cnn winner 90.50 %" in said, "the verdict is read without moving the table sideways"
    assert "hpsearch run small.toml hpsearch finalists small hpsearch export small" in said


def test_what_nobody_has_looked_for_is_one_line_with_its_command(read: Read) -> None:
    said = words(report(read()))
    assert "hpsearch explain small changes one parameter at a time" in said
    assert "hpsearch finalists small trains the best few again" in said


HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> =cmd() 日本語 עברית"


def test_hostile_words_of_a_study_appear_as_text(tmp_path: Path) -> None:
    study = stored_study(
        tmp_path, state=lambda number: TrialState.FAIL if number == 3 else TrialState.COMPLETE, end={"reason": HOSTILE, "diverged": True}
    )
    paths = StudyPaths(tmp_path / "small")
    for number in range(12):
        leave_predictions(paths.trial(number).predictions, classes=(HOSTILE, "dog", "e" * 100_000))
    html = report(read_results(study, paths))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "日本語 עברית" in html


@pytest.mark.slow
def test_the_page_of_a_large_study_stays_small(read: Read) -> None:
    html = report(read(trials=2000, epochs=20, state=every_third_pruned))
    assert len(html.encode()) <= LARGEST_REPORT


@pytest.mark.slow
def test_a_report_loads_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = f"""
import sys
from datetime import datetime
from pathlib import Path
from hpsearch.analysis.finalists import Candidate, evaluate_finalists
from hpsearch.config.paths import StudyPaths
from hpsearch.report.study_results import read_results
from hpsearch.report.study_report import study_report
from tests.support.stored_study import stored_study
study_report([read_results(stored_study(Path({str(tmp_path)!r}), trials=30), StudyPaths(Path({str(tmp_path)!r})))], at=datetime.now())
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
