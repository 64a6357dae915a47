"""Rules of metrics, against definitions and published figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.analysis.metrics import (
    Predictions,
    calibration_error,
    compare,
    mean_over_images,
    mean_over_seeds,
    measure,
    most_confident_mistakes,
    overfitting,
    read_mistakes,
    read_predictions,
)
from hpsearch.errors import DataError

CLASSES = ("a", "b", "c")


def _predictions(label: list[int], predicted: list[int], confidence: list[float] | None = None) -> Predictions:
    return Predictions(
        label=numpy.array(label, dtype=numpy.int64),
        predicted=numpy.array(predicted, dtype=numpy.int64),
        confidence=numpy.array(confidence or [1.0] * len(label)),
        classes=CLASSES,
    )


def test_metrics_are_those_of_their_definitions() -> None:
    metrics = measure(_predictions([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]))
    assert metrics.accuracy == pytest.approx(4 / 6)
    a, b, c = metrics.classes
    assert (a.precision, a.recall, a.support) == (1.0, pytest.approx(2 / 3), 3)
    assert (b.precision, b.recall, b.f1) == (0.5, 0.5, 0.5)
    assert (c.precision, c.recall, c.support) == (0.5, 1.0, 1)
    assert metrics.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 1))


def test_a_class_that_is_never_guessed_has_precision_0() -> None:
    assert measure(_predictions([0, 1], [0, 0])).classes[1].precision == 0.0


def test_the_weakest_classes_are_named_with_what_they_are_taken_for() -> None:
    weakest = measure(_predictions([0, 0, 1, 1, 2, 2], [0, 0, 2, 2, 2, 0])).weakest
    assert weakest[0] == "b: 0.0 % recognised, most often taken for c (2 images)"


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    assert calibration_error(_predictions([0, 0, 0, 0], [0, 0, 0, 1], [0.75] * 4)) == pytest.approx(0.0)
    assert calibration_error(_predictions([0, 0], [1, 1], [1.0, 1.0])) == pytest.approx(1.0)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    # 9 against 1: 2 · (1 + 10) / 2^10.
    first = _predictions([0] * 20, [0] * 9 + [1] + [0] * 10)
    second = _predictions([0] * 20, [1] * 9 + [0] + [0] * 10)
    found = compare(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    assert found.p_value == pytest.approx(22 / 1024)
    assert found.difference == pytest.approx(0.4)
    assert found.interval[0] < 0.4 < found.interval[1]


def test_equal_predictions_do_not_differ() -> None:
    same = _predictions([0, 1, 2], [0, 1, 1])
    found = compare(same, same)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.interval[0] < 0 < found.interval[1]


def test_other_images_are_not_compared() -> None:
    with pytest.raises(DataError, match="not measured on the same images"):
        compare(_predictions([0, 1], [0, 1]), _predictions([1, 0], [0, 1]))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1)), min_size=1, max_size=60))
def test_counts_add_up_whatever_the_predictions(rows: list[tuple[int, int, float]]) -> None:
    label, predicted, confidence = (list(column) for column in zip(*rows, strict=True))
    metrics = measure(_predictions(label, predicted, confidence))  # type: ignore[arg-type]
    assert sum(map(sum, metrics.confusion)) == len(rows)
    assert [sum(row) for row in metrics.confusion] == [each.support for each in metrics.classes]
    assert metrics.interval[0] <= metrics.accuracy <= metrics.interval[1]
    assert 0 <= metrics.calibration_error <= 1


def test_the_most_confident_mistakes_come_first() -> None:
    assert most_confident_mistakes(_predictions([0, 0, 0, 0], [1, 0, 1, 1], [0.5, 0.9, 0.8, 0.6]), 2) == [2, 3]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_damaged_predictions_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="are damaged"):
        read_predictions(path)
    with pytest.raises(DataError, match="there are no predictions"):
        read_predictions(tmp_path / "gone.npz")


WHOLE = {
    "label": numpy.array([0, 1, 2]),
    "predicted": numpy.array([0, 1, 1]),
    "confidence": numpy.array([1.0, 0.5, 0.4]),
    "classes": numpy.array(CLASSES),
    "mistake": numpy.array([2]),
    "mistake_image": numpy.zeros((1, 1, 4, 4), numpy.uint8),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label", [0, 1, 3]),
        ("label", [0, -1, 2]),
        ("label", [0, 1]),
        ("label", [[0, 1, 2]]),
        ("label", 0),
        ("label", []),
        ("predicted", ["a", "b", "c"]),
        ("confidence", [1.0, 0.5, math.nan]),
        ("confidence", [1.0, 0.5, 7.0]),
        ("confidence", [1.0, 0.5, 0.4j]),
        ("classes", "a"),
        ("classes", [CLASSES]),
    ],
)
def test_predictions_of_another_structure_are_named(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    numpy.savez(path, **WHOLE)
    assert read_predictions(path).classes == CLASSES
    numpy.savez(path, **{**WHOLE, name: numpy.array(value)})
    with pytest.raises(DataError, match=r"predictions\.npz (are damaged|cannot be used): "):
        read_predictions(path)


def test_predictions_of_a_diverged_model_have_no_metrics(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    numpy.savez(path, **{**WHOLE, "confidence": numpy.array([0.5, numpy.nan, 0.5])})
    with pytest.raises(DataError, match="cannot be used: a confidence is nan, not between 0 and 1\nThe training of the model diverged"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mistake", [3]), ("mistake", [0, 1]), ("mistake", ["a"]), ("mistake_image", [0.0])],
)
def test_mistakes_that_do_not_fit_are_named(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    numpy.savez(path, **WHOLE)
    assert read_mistakes(path)[0] == [2]
    numpy.savez(path, **{**WHOLE, name: numpy.array(value)})
    with pytest.raises(DataError, match=r"predictions\.npz are damaged: "):
        read_mistakes(path)


@pytest.mark.parametrize(
    ("train", "other", "begins"),
    [
        ([0.98], [0.92], "It overfits: 98.00 % right on the training images, 92.00 % on the test images, 6.00 ± "),
        ([0.93], [0.915], "It overfits slightly: "),
        ([0.93], [0.928], "No overfitting shown: "),
        # Of single seeds the first would be a slight one; the seeds disagree too much.
        ([0.95, 0.91, 0.93], [0.91, 0.92, 0.92], "No overfitting shown: "),
        ([0.981, 0.980, 0.982], [0.92, 0.921, 0.92], "It overfits: "),
    ],
)
def test_overfitting_is_read_against_chance(train: list[float], other: list[float], begins: str) -> None:
    said = overfitting(train, other, n_images=(60_000, 10_000), name="test")
    assert said.startswith(begins)
    assert said.endswith(f"(95 %, over {f'{len(train)} seeds' if len(train) > 1 else 'the images'}).")


def test_a_mean_over_seeds_has_the_interval_of_students_t() -> None:
    found = mean_over_seeds([0.91, 0.92, 0.93])
    assert found.value == pytest.approx(0.92)
    # 4.303 standard errors of 0.01 / sqrt(3), from a table.
    assert found.interval == pytest.approx((0.92 - 0.02484, 0.92 + 0.02484), abs=1e-5)


def test_a_mean_over_images_has_the_interval_of_their_spread() -> None:
    values = numpy.array([0.0, 1.0] * 5_000)
    found = mean_over_images(values)
    assert found.value == 0.5
    assert found.interval == pytest.approx((0.5 - 0.0098, 0.5 + 0.0098), abs=1e-6)
