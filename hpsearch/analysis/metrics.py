"""Metrics of predictions, intervals of means and shares, and the comparison of two models on the same images.

Predictions are numpy arrays, so this module needs no torch. scikit-learn and scipy load on the first call that needs them.
"""

from __future__ import annotations

import math
import statistics
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from hpsearch.errors import DataError
from hpsearch.formatting import one_line

CALIBRATION_BINS = 15
"""The number of bins in Guo et al. (ICML 2017)."""
ROUNDING = 1e-5
"""How far a float32 probability may exceed 1."""
Z95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution, for 95 % intervals."""
CLEAR_GAP = 0.03
"""A larger gap between training and test accuracy is no longer called slight. Small networks that stop in time have smaller gaps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """The predictions of a model for N images.

    Attributes:
        label, predicted: int64 [N], indices of the true and of the predicted classes.
        confidence: float64 [N], probability of the predicted class, 0 to 1.
        classes: names of all classes.
    """

    label: NDArray[numpy.int64]
    predicted: NDArray[numpy.int64]
    confidence: NDArray[numpy.float64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.label) == len(self.predicted) == len(self.confidence):
            raise DataError(f"predictions of {len(self.predicted)} images for {len(self.label)} labels")
        for indices in (self.label, self.predicted):
            if indices.size and not 0 <= indices.min() <= indices.max() < len(self.classes):
                raise DataError(f"a class is {indices.min()} or {indices.max()}, but there are {len(self.classes)} classes")
        # A model whose training diverged may have a confidence that is not a number. Rounding may exceed 1.
        if (wrong := ~((self.confidence >= 0) & (self.confidence <= 1 + ROUNDING))).any():
            raise DataError(
                f"a confidence is {self.confidence[wrong][0]:g}, not between 0 and 1",
                hint="The training of the model diverged, or its file was changed.",
            )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Precision, recall and F1 of one class, 0 to 1, and its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The metrics of some predictions.

    Attributes:
        interval: 95 % interval of the accuracy, from the number of images.
        confusion: image counts, `confusion[true class][predicted class]`.
        calibration_error: expected calibration error, 0 to 1.
        weakest: sentences about the classes with the lowest recall and their most frequent wrong prediction.
    """

    n_images: int
    accuracy: float
    interval: tuple[float, float]
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    weakest: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        difference: accuracy of the first model minus accuracy of the second model.
        interval: 95 % interval of `difference`, paired by image.
        only_first, only_second: number of images that only this model classifies correctly.
        p_value: p-value of McNemar's exact test of equal accuracy.
    """

    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float


def measure(predictions: Predictions) -> Metrics:
    """Compute all metrics of some predictions.

    Args:
        predictions: predictions of at least one image.

    Returns:
        The metrics. Precision, recall and F1 are 0 where they are undefined.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = list(range(len(predictions.classes)))
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.label, predictions.predicted, labels=labels, average=None, zero_division=0.0
    )
    confusion = confusion_matrix(predictions.label, predictions.predicted, labels=labels)
    accuracy = float((predictions.label == predictions.predicted).mean())
    return Metrics(
        n_images=len(predictions.label),
        accuracy=accuracy,
        interval=wilson_interval(accuracy, len(predictions.label)),
        classes=tuple(
            ClassMetrics(name=name, precision=float(precision[i]), recall=float(recall[i]), f1=float(f1[i]), support=int(support[i]))
            for i, name in enumerate(predictions.classes)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration_error=calibration_error(predictions),
        weakest=tuple(_weakest(confusion, recall, predictions.classes)),
    )


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson, JASA 22, 1927).

    Args:
        share: the observed proportion, 0 to 1.
        count: number of observations.

    Returns:
        Both ends of the interval, 0 to 1.
    """
    shrunk = 1 + Z95**2 / count
    middle = (share + Z95**2 / (2 * count)) / shrunk
    half = Z95 / shrunk * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    # Rounding must not exclude a share of 0 or 1.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def difference_margin(accuracy: float, n_images: int) -> float:
    """Return the 95 % margin of the difference between two accuracies, each measured on its own images.

    The margin is the normal approximation for two independent proportions.

    Args:
        accuracy: the accuracy that both are assumed to have, 0 to 1.
        n_images: number of images behind each accuracy.

    Returns:
        The margin, 0 to 1. By chance alone, 5 of 100 differences exceed the margin.
    """
    return Z95 * math.sqrt(2 * accuracy * (1 - accuracy) / n_images)


def mean_over_images(values: NDArray[numpy.float64]) -> Estimate:
    """Return the mean of one value for each image, with its normal 95 % interval.

    Args:
        values: float64 [N].

    Returns:
        The mean and its interval. A single value has an infinite interval.
    """
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(value=mean, interval=(mean - half, mean + half))


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one value for each seed, with its 95 % interval from Student's t distribution.

    Args:
        values: at least two values.

    Returns:
        The mean and its interval.
    """
    from scipy.stats import t as student_t

    mean = statistics.mean(values)
    half = float(student_t.ppf(0.975, df=len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(value=mean, interval=(mean - half, mean + half))


def overfitting(train: Sequence[float], other: Sequence[float], *, n_images: tuple[int, int], name: str) -> str:
    """Say in one sentence whether a model overfits. The sentence compares the accuracy gap with its 95 % margin.

    With several seeds the margin comes from the spread of their gaps. With one seed it comes from the number of images.

    Args:
        train: training accuracy of each seed, 0 to 1.
        other: accuracy of each seed on the other images, in the same order.
        n_images: number of training images and of other images.
        name: name of the other images, such as `test`.

    Returns:
        The sentence.
    """
    gaps = [on_train - on_other for on_train, on_other in zip(train, other, strict=True)]
    gap = statistics.mean(gaps)
    if len(gaps) > 1:
        low, high = mean_over_seeds(gaps).interval
        margin, over = (high - low) / 2, f"over {len(gaps)} seeds"
    else:
        variance = sum(share * (1 - share) / count for share, count in zip((train[0], other[0]), n_images, strict=True))
        margin, over = Z95 * math.sqrt(variance), "over the images"
    said = (
        f"{100 * statistics.mean(train):.2f} % right on the training images, {100 * statistics.mean(other):.2f} % on the {name} images, "
        f"{100 * gap:.2f} ± {100 * margin:.2f} points apart (95 %, {over})"
    )
    if gap <= margin:
        return f"No overfitting shown: {said}."
    return f"It overfits: {said}." if gap > CLEAR_GAP else f"It overfits slightly: {said}."


def calibration_error(predictions: Predictions) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    The error is the mean of |accuracy - confidence| over equally wide bins of confidence. Each bin has its number of images as weight.

    Args:
        predictions: predictions of at least one image.

    Returns:
        The error, 0 to 1.
    """
    right = predictions.label == predictions.predicted
    bins = numpy.minimum((predictions.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    # A bin with n of N images has the weight n / N, so its weighted gap is |sum of (correct - confidence)| / N.
    return float(numpy.abs(numpy.bincount(bins, weights=right - predictions.confidence)).sum() / len(bins))


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compare two models on the same images.

    The interval is the adjusted Wald interval for paired proportions, with half an observation added to each cell (Agresti and
    Min, Statistics in Medicine 24, 2005). The test is McNemar's (Psychometrika 12, 1947) in its exact binomial form.

    Args:
        first: predictions of one model.
        second: predictions of the other model for the same images in the same order.

    Returns:
        The comparison.

    Raises:
        DataError: the labels differ, so the images are not the same.
    """
    from scipy.stats import binomtest

    if len(first.label) != len(second.label) or not numpy.array_equal(first.label, second.label):
        raise DataError("the two were not measured on the same images", hint="A paired comparison needs the same split.")
    first_correct, second_correct = first.predicted == first.label, second.predicted == second.label
    only_first, only_second = int((first_correct & ~second_correct).sum()), int((second_correct & ~first_correct).sum())
    count = len(first_correct)
    adjusted_first, adjusted_second, adjusted = only_first + 0.5, only_second + 0.5, count + 2.0
    middle = (adjusted_first - adjusted_second) / adjusted
    half = Z95 * math.sqrt((adjusted_first + adjusted_second) / adjusted - middle**2) / math.sqrt(adjusted)
    discordant = only_first + only_second
    return Comparison(
        difference=(only_first - only_second) / count,
        interval=(middle - half, middle + half),
        only_first=only_first,
        only_second=only_second,
        p_value=float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0,
    )


def most_confident_mistakes(predictions: Predictions, count: int) -> list[int]:
    """Return the misclassified images with the highest confidence.

    Args:
        predictions: predictions of some images.
        count: maximum number of images.

    Returns:
        Indices of the images, highest confidence first.
    """
    wrong = numpy.flatnonzero(predictions.label != predictions.predicted)
    return [int(index) for index in wrong[numpy.argsort(-predictions.confidence[wrong], kind="stable")][:count]]


def read_predictions(path: Path) -> Predictions:
    """Read the predictions that a trainer wrote beside its checkpoint.

    Args:
        path: the `.npz` file.

    Returns:
        The predictions for the validation images.

    Raises:
        DataError: the file is missing or damaged.
    """
    stored = _read_arrays(path, label=("ui", 1), predicted=("ui", 1), confidence=("f", 1), classes=("U", 1))
    if not len(stored["label"]):
        raise DataError(f"the predictions {path} are damaged: they have no images")
    try:
        return Predictions(
            label=stored["label"].astype(numpy.int64),
            predicted=stored["predicted"].astype(numpy.int64),
            confidence=stored["confidence"].astype(numpy.float64),
            classes=tuple(map(str, stored["classes"])),
        )
    except DataError as error:
        raise DataError(f"the predictions {path} cannot be used: {error.message}", hint=error.hint) from error


def read_mistakes(path: Path) -> tuple[list[int], NDArray[numpy.uint8]]:
    """Read the misclassified images that a trainer wrote with its predictions.

    Args:
        path: the `.npz` file.

    Returns:
        Indices of K images, highest confidence first, and the images: uint8 [K, C, H, W].

    Raises:
        DataError: the file is missing or damaged.
    """
    stored = _read_arrays(path, mistake=("ui", 1), mistake_image=("u", 4), label=("ui", 1))
    indices, images = stored["mistake"], stored["mistake_image"]
    if len(indices) != len(images) or (indices.size and not 0 <= indices.min() <= indices.max() < len(stored["label"])):
        raise DataError(f"the predictions {path} are damaged: the mistakes do not fit the images")
    return [int(index) for index in indices], images


def _read_arrays(path: Path, **wanted: tuple[str, int]) -> dict[str, NDArray[Any]]:
    """Read arrays by name. Each must have one of some kinds (`numpy.dtype.kind`) and a number of dimensions."""
    try:
        # numpy does not close a file that it cannot read, so this function opens and closes the file itself.
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in wanted}
        for name, (kinds, dimensions) in wanted.items():
            if found[name].dtype.kind not in kinds or found[name].ndim != dimensions:
                raise ValueError(f"{name} is {found[name].dtype} of shape {found[name].shape}")
        return found
    except FileNotFoundError as error:
        raise DataError(f"there are no predictions {path}", hint="They are written after a trial's last epoch.") from error
    except (OSError, TypeError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"the predictions {path} are damaged: {one_line(str(error))}") from error


def _weakest(confusion: NDArray[Any], recall: NDArray[Any], classes: Sequence[str], count: int = 2) -> list[str]:
    sentences = []
    for index in numpy.argsort(recall, kind="stable")[:count]:
        taken = confusion[index].copy()
        taken[index] = 0
        if taken.any():
            guess = int(taken.argmax())
            sentences.append(
                f"{classes[index]}: {100 * recall[index]:.1f} % recognised, most often taken for {classes[guess]} ({int(taken[guess])} images)"
            )
    return sentences
