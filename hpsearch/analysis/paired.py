"""Compares a few configurations that ran with the same seeds and splits.

A repeat is one seed and one split of the images, shared by all configurations. The scores are a table with a row for each
configuration and a column for each repeat. Some cells may be empty.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from hpsearch.analysis.metrics import Z95, Estimate

CONFIDENCE = 0.95
DRAWS = 20_000
"""Number of samples for the probability of being the best. The standard error of this probability is below half a percentage point."""

Scores = Mapping[str, Mapping[int, float]]
"""Accuracy, 0 to 1, by name of the configuration and by number of the repeat."""


class TwoWayFit:
    """A least-squares fit of accuracy = configuration + repeat + noise, with equal noise for all configurations.

    The splits of the repeats overlap, so the repeats are not independent. The variance of a mean over J repeats is therefore
    (1/J + n_images / (pool - n_images)) times the variance of one repeat (Nadeau and Bengio, Machine Learning 52, 2003).

    Args:
        scores: at least one repeat of each configuration.
        n_images: validation images in each split. Their binomial variance is used if there are too few scores to estimate the noise.
        pool: training images from which every split's validation images are drawn.
    """

    def __init__(self, scores: Scores, *, n_images: int, pool: int) -> None:
        self._names = list(scores)
        repeats = sorted({repeat for row in scores.values() for repeat in row})
        cells = [(i, repeats.index(repeat), value) for i, name in enumerate(self._names) for repeat, value in scores[name].items()]
        values = numpy.array([value for _, _, value in cells])
        design = numpy.zeros((len(cells), len(self._names) + len(repeats)))
        for row, (i, j, _) in enumerate(cells):
            design[row, i] = design[row, len(self._names) + j] = 1.0
        self._covariance: NDArray[Any] = numpy.linalg.pinv(design.T @ design)[: len(self._names), : len(self._names)]
        solution = numpy.linalg.lstsq(design, values, rcond=None)[0]
        self._effects: NDArray[Any] = solution[: len(self._names)]
        self._freedom = len(cells) - int(numpy.linalg.matrix_rank(design))
        if self._freedom:
            self._variance = float(((values - design @ solution) ** 2).sum()) / self._freedom
        else:
            share = float(values.mean())
            self._variance, self._freedom = share * (1 - share) / n_images, 10**6
        self._counts = [len(scores[name]) for name in self._names]
        self._overlap = n_images / (pool - n_images) if pool > n_images else 1.0

    def difference(self, first: str, second: str) -> Estimate:
        """Estimate the accuracy of the first configuration minus the accuracy of the second configuration.

        Args:
            first: name of the first configuration.
            second: name of the second configuration.

        Returns:
            The difference with its 95 % interval from Student's t distribution.
        """
        contrast = numpy.zeros(len(self._names))
        i, j = self._names.index(first), self._names.index(second)
        contrast[i] += 1
        contrast[j] -= 1
        value = float(contrast @ self._effects)
        variance = float(contrast @ self._covariance @ contrast) * self._variance * self._widened(min(self._counts[i], self._counts[j]))
        half = _quantile(self._freedom) * math.sqrt(max(0.0, variance))
        return Estimate(value=value, interval=(value - half, value + half))

    def best_probabilities(self, *, seed: int) -> dict[str, float]:
        """Estimate for each configuration the posterior probability that it is the best, under flat priors.

        Args:
            seed: seed of the random samples.

        Returns:
            The probability of each configuration. The sum is 1.
        """
        generator = numpy.random.default_rng(seed)
        centre = numpy.eye(len(self._names)) - 1 / len(self._names)
        # The fit determines only differences, so the effects are centred.
        covariance = centre @ self._covariance @ centre * self._variance * self._widened(min(self._counts))
        normal = generator.multivariate_normal(numpy.zeros(len(self._names)), covariance, size=DRAWS, method="eigh")
        scale = numpy.sqrt(self._freedom / generator.chisquare(self._freedom, size=(DRAWS, 1)))
        winners = (centre @ self._effects + normal * scale).argmax(axis=1)
        return {name: float((winners == i).mean()) for i, name in enumerate(self._names)}

    def _widened(self, repeats: int) -> float:
        return 1 + repeats * self._overlap


def mean_estimate(values: Sequence[float], *, others: Sequence[float] = (), n_images: int, pool: int) -> Estimate:
    """Estimate the mean accuracy of one configuration over repeats.

    The interval covers the variation between seeds and splits, and the binomial variation of the images in the pool.

    Args:
        values: scores of the repeats, at least one.
        others: further scores of the same configuration, used for the variance but not for the mean.
        n_images: validation images in each split.
        pool: training images from which every split's validation images are drawn.

    Returns:
        The mean with its 95 % interval, 0 to 1.
    """
    mean = statistics.mean(values)
    groups = [group for group in (values, others) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if freedom:
        variance = sum(sum((value - statistics.mean(group)) ** 2 for value in group) for group in groups) / freedom
        # All repeats share the images of the pool, so more repeats do not reduce this part.
        half = math.hypot(_quantile(freedom) * math.sqrt(variance / len(values)), Z95 * math.sqrt(mean * (1 - mean) / pool))
    else:
        half = Z95 * math.sqrt(mean * (1 - mean) / n_images)
    return Estimate(value=mean, interval=(max(0.0, mean - half), min(1.0, mean + half)))


def _quantile(freedom: int) -> float:
    # scipy.stats.t has the same function but needs a second and 50 MB to load.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
