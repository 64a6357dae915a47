"""Metrics of predictions: per class, confusion, calibration, and the comparison of two models on the same images.

scikit-learn computes what it has; predictions are plain arrays, so that no torch is needed.
"""

from __future__ import annotations

import math
import statistics
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from hpsearch.errors import DataError

CALIBRATION_BINS = 15
"""As Guo et al. (ICML 2017) take."""
Z95 = 1.959964
"""Of the standard normal distribution: 95 % lie within so many standard deviations."""
CLEAR_GAP = 0.03
"""Between training and test accuracy: more than what these small networks show when they are trained no longer than it helps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model made of some images.

    Attributes:
        label, predicted: whole numbers [N], indices of classes.
        confidence: float [N], the probability given to the predicted class.
        classes: their names.
    """

    label: NDArray[numpy.int64]
    predicted: NDArray[numpy.int64]
    confidence: NDArray[numpy.float64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.label) == len(self.predicted) == len(self.confidence):
            raise DataError(f"predictions of {len(self.predicted)} images for {len(self.label)} labels")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class: precision, recall, F1, and how many images it has."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What predictions are worth.

    Attributes:
        interval: 95 % interval of the accuracy, from the number of images.
        confusion: confusion[truth][guess], counts.
        calibration_error: mean difference between confidence and accuracy over bins of confidence, weighted by their images.
        weakest: sentences on the classes of lowest recall and what they are taken for.
    """

    n_images: int
    accuracy: float
    interval: tuple[float, float]
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    weakest: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        difference: accuracy of the first less that of the second; `interval` holds 95 % of it, paired by image.
        only_first, only_second: images that one alone classifies correctly.
        p_value: of McNemar's exact test that the two are equally good.
    """

    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float


def measure(predictions: Predictions) -> Metrics:
    """All metrics of some predictions."""
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
    """The 95 % interval of a share measured on `count` images (Wilson, JASA 22, 1927)."""
    shrunk = 1 + Z95**2 / count
    middle = (share + Z95**2 / (2 * count)) / shrunk
    half = Z95 / shrunk * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    # At shares of 0 and 1 rounding would leave the share itself outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def mean_over_images(values: NDArray[numpy.float64]) -> Estimate:
    """The mean of one value an image, and its interval from their spread."""
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(value=mean, interval=(mean - half, mean + half))


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed, and its interval by Student's t; at least two values."""
    from scipy.stats import t as student_t

    mean = statistics.mean(values)
    half = float(student_t.ppf(0.975, df=len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(value=mean, interval=(mean - half, mean + half))


def overfitting(train: Sequence[float], other: Sequence[float], *, n_images: tuple[int, int], name: str) -> str:
    """One sentence: how much better a model is on what it was trained on, read against chance.

    Chance is the spread of the seeds where there are several, else that of the images.

    Args:
        train, other: accuracies, one a seed, in the same order.
        images: how many of both were measured.
        name: of the other images: `test`.
    """
    gaps = [mine - theirs for mine, theirs in zip(train, other, strict=True)]
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
    """Expected calibration error over equal bins of confidence (Naeini et al., AAAI 2015; Guo et al., ICML 2017)."""
    right = predictions.label == predictions.predicted
    bins = numpy.minimum((predictions.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = 0.0
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        if inside.any():
            error += float(inside.mean()) * abs(float(right[inside].mean()) - float(predictions.confidence[inside].mean()))
    return error


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Two models' predictions of the same images.

    The interval is that of a difference of paired shares (Agresti & Min, Statistics in Medicine 24,
    2005: half an observation is added to each cell), the test McNemar's, exact (binomial).

    Raises:
        DataError: the images are not the same.
    """
    from scipy.stats import binomtest

    if len(first.label) != len(second.label) or not numpy.array_equal(first.label, second.label):
        raise DataError("the two were not measured on the same images", hint="A paired comparison needs the same split.")
    mine, theirs = first.predicted == first.label, second.predicted == second.label
    only_first, only_second, count = int((mine & ~theirs).sum()), int((theirs & ~mine).sum()), len(mine)
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
    """Indices of the wrong predictions with the highest confidence, the worst first."""
    wrong = numpy.flatnonzero(predictions.label != predictions.predicted)
    return [int(index) for index in wrong[numpy.argsort(-predictions.confidence[wrong], kind="stable")][:count]]


def read_predictions(path: Path) -> Predictions:
    """The predictions that a trainer left beside its checkpoint.

    Raises:
        DataError: there are none, or the file is damaged.
    """
    stored = _stored(path, "label", "predicted", "confidence", "classes")
    return Predictions(
        label=stored["label"].astype(numpy.int64),
        predicted=stored["predicted"].astype(numpy.int64),
        confidence=stored["confidence"].astype(numpy.float64),
        classes=tuple(map(str, stored["classes"])),
    )


def read_mistakes(path: Path) -> tuple[list[int], NDArray[numpy.uint8]]:
    """The most confident mistakes that a trainer left with its predictions: indices, and images as uint8 [K, C, H, W].

    Raises:
        DataError: there are none, or the file is damaged.
    """
    stored = _stored(path, "mistake", "mistake_image")
    return [int(index) for index in stored["mistake"]], stored["mistake_image"]


def _stored(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    try:
        # numpy would leave a file open that it cannot read.
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except FileNotFoundError as error:
        raise DataError(f"there are no predictions {path}", hint="They are written after a trial's last epoch.") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the predictions {path} are damaged: {error}") from error


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
