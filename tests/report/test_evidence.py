"""Rules of the evidence in a report: the Pareto line, what an axis shows, importances, values on a bound."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpsearch.analysis.importance import FEWEST_TRIALS, importances
from hpsearch.config.distributions import Choices, FloatRange, IntRange
from hpsearch.config.paths import StudyPaths
from hpsearch.report.blocks import Chart
from hpsearch.report.figures.prediction_figures import HEADROOM, confusion_difference
from hpsearch.report.figures.search_figures import curves, log_ticks, out_of_sight, pareto, timeline, view
from hpsearch.report.sections.space_results import on_a_bound, where
from hpsearch.report.study_results import read_results
from hpsearch.storage.records import TrialRow, read_trials
from tests.support.stored_study import stored_study

READABLE = 4.5
"""Contrast of small text with its ground: Web Content Accessibility Guidelines 2.1, 1.4.3."""


@pytest.fixture
def trials(tmp_path: Path) -> list[TrialRow]:
    return read_trials(stored_study(tmp_path, trials=160))


def test_nothing_beats_a_trial_of_the_pareto_line_at_its_cost_or_less(trials: list[TrialRow]) -> None:
    front = pareto(trials, "parameters")
    for one in front:
        better = [each for each in trials if (each.value or 0) > (one.value or 0) and (each.n_parameters or 0) <= (one.n_parameters or 0)]
        assert not better
    assert max(trials, key=lambda each: each.value or 0).value == front[-1].value


def test_a_trial_that_learned_nothing_does_not_press_the_others_together() -> None:
    shown = view([10.0, 90.0, 90.5, 91.0, 91.2])
    assert shown is not None
    assert shown[0] > 80
    assert shown[1] > 91.2
    assert out_of_sight([10.0, 90.0, 90.5, 91.0, 91.2]) == 1


def test_where_all_trials_are_alike_all_are_seen() -> None:
    assert out_of_sight([90.0, 90.1, 90.2]) == 0
    assert view([90.0]) is None


@pytest.mark.parametrize("values", [[61_706, 121_930], [1e-6, 1e-2], [3, 500_000_000], [5.0, 5.0]])
def test_a_logarithmic_axis_has_a_handful_of_round_numbers(values: list[float]) -> None:
    ticks = log_ticks(values)["tickvals"]
    assert isinstance(ticks, list)
    assert 1 <= len(ticks) <= 9


def test_the_parameter_that_decides_is_the_most_important(trials: list[TrialRow]) -> None:
    decided = [
        replace(trial, value=0.5 + trial.params["cnn.filters1"] / 1000) if trial.model == "cnn" else trial  # type: ignore[operator]  # a number
        for trial in trials
    ]
    found = importances(decided, "cnn")
    assert found is not None
    assert found.parameters[0].name == "cnn.filters1"
    assert found.parameters[0].interval[0] > found.parameters[1].interval[1]
    assert found.explained > 0.9
    assert found.doubt == ""


def test_importances_of_trials_that_nothing_explains_are_doubted(trials: list[TrialRow]) -> None:
    noise = [replace(trial, value=0.5 + trial.number * 7919 % 160 / 1000) for trial in trials]
    found = importances(noise, "lenet5")
    assert found is not None
    assert found.explained < 0.2
    assert "its parameters say little" in found.doubt


def test_too_few_trials_have_no_importances(tmp_path: Path) -> None:
    few = read_trials(stored_study(tmp_path, trials=2 * FEWEST_TRIALS - 2))
    assert importances(few, "cnn") is None


def test_a_value_at_an_end_of_its_range_is_flagged(trials: list[TrialRow]) -> None:
    trial = replace(trials[0], params={"lr": 0.0999, "width": 30, "kind": "a"})
    space = {
        "lr": FloatRange(low=1e-4, high=0.1, log=True),
        "width": IntRange(low=8, high=64),
        "kind": Choices(values=("a", "b")),
    }
    (flag,) = on_a_bound(trial, space)
    assert flag.startswith("lr = 0.0999")
    assert "upper end of 0.0001 to 0.1" in flag


@pytest.mark.parametrize(("apart", "pause"), [(0.4, 0.0), (1.2, 4000.0)])
def test_bars_of_trials_shorter_than_a_second_hide_no_other(tmp_path: Path, apart: float, pause: float) -> None:
    begin = datetime(2026, 3, 1, 12).timestamp()
    short = [
        replace(
            trial,
            attempts=({"worker": "worker-abc-1", "at": at, "epochs": 0},),
            finished=datetime.fromtimestamp(at + 0.3),
        )
        for trial in read_trials(stored_study(tmp_path, trials=8))
        # In pairs, one at the heels of the other.
        for at in [begin + apart * trial.number + pause * (trial.number // 2)]
    ]
    bars = [
        (datetime.fromisoformat(base), timedelta(milliseconds=width))
        for trace in timeline(short).data
        for base, width in zip(trace.base, trace.x, strict=True)
    ]
    ordered = sorted(bars)
    assert len(ordered) == 8
    assert all(start + width <= later for (start, width), (later, _) in pairwise(ordered))


def test_a_trial_pruned_after_one_epoch_is_seen_among_the_curves(tmp_path: Path) -> None:
    trials = read_trials(stored_study(tmp_path, trials=4, state=lambda number: TrialState.PRUNED))
    assert [len(trial.epochs) for trial in trials] == [1, 1, 1, 1]
    assert all("markers" in trace.mode for trace in curves(trials).data)


def test_where_nothing_is_known_of_parameters_the_ranges_are_shown_first(tmp_path: Path) -> None:
    study = read_results(stored_study(tmp_path, trials=8, epochs=3), StudyPaths(tmp_path / "small"))
    assert not study.importances
    titles = [block.title for block in where(study) if isinstance(block, Chart)]
    assert set(titles) == {"cnn.filters1", "sgd.lr", "adam.lr", "optimizer"}
    assert titles[-1] == "optimizer"


@pytest.mark.parametrize(
    ("paper", "ink", "ends"), [("#ffffff", "#1b1f24", ("#D55E00", "#0072B2")), ("#16191e", "#e8eaed", ("#F58A42", "#4FA3E0"))]
)
def test_the_number_in_the_strongest_cell_can_be_read_in_both_themes(paper: str, ink: str, ends: tuple[str, str]) -> None:
    cells = confusion_difference(["cat", "dog"], [[90, 0], [0, 90]], [[0, 90], [0, 90]]).data[0]
    assert (cells.zmin, cells.zmax) == (-HEADROOM * 90, HEADROOM * 90)
    for end in ends:
        ground = [dim + (strong - dim) / HEADROOM for dim, strong in zip(_channels(paper), _channels(end), strict=True)]
        light, dark = sorted((_luminance(ground), _luminance(_channels(ink))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= READABLE


def _channels(colour: str) -> list[float]:
    return [int(colour[workspace : workspace + 2], 16) / 255 for workspace in (1, 3, 5)]


def _luminance(channels: list[float]) -> float:
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
