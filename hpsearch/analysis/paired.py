"""Scores of a few configurations on the same seeds and splits: differences, intervals and who is likely best.

Each repeat is one seed and one split of the images, shared by all; so a configuration's scores and
a repeat's luck add up to a two-way layout, some cells of which may be empty.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from hpsearch.analysis.metrics import Z95

CONFIDENCE = 0.95
DRAWS = 20_000
"""Of who is best; a probability is then known to half a percentage point."""

Scores = Mapping[str, Mapping[int, float]]
"""Configuration to repeat to accuracy, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    interval: tuple[float, float]

    @property
    def excludes_zero(self) -> bool:
        """Whether chance alone would hardly give it."""
        low, high = self.interval
        return low > 0 or high < 0


class TwoWayFit:
    """Least squares of accuracy = configuration + repeat + noise, the noise alike for all.

    Repeats draw their splits out of the same images, so they are not independent: the variance of a
    mean over J of them is taken as (1/J + images / (pool - images)) of one's, the correction of Nadeau
    and Bengio (Machine Learning 52, 2003) for repeated random splits.

    Args:
        scores: at least one repeat of each configuration.
        images: validation images of a split; their binomial noise stands in where nothing was repeated.
        pool: the images that every split's validation images are drawn out of.
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
        """What the first has over the second."""
        contrast = numpy.zeros(len(self._names))
        i, j = self._names.index(first), self._names.index(second)
        contrast[i] += 1
        contrast[j] -= 1
        value = float(contrast @ self._effects)
        variance = float(contrast @ self._covariance @ contrast) * self._variance * self._widened(min(self._counts[i], self._counts[j]))
        half = _quantile(self._freedom) * math.sqrt(max(0.0, variance))
        return Estimate(value=value, interval=(value - half, value + half))

    def best_probabilities(self, *, seed: int) -> dict[str, float]:
        """For each, how probable it is that none of the others is better: the posterior share under flat priors."""
        generator = numpy.random.default_rng(seed)
        centre = numpy.eye(len(self._names)) - 1 / len(self._names)
        # Only differences are known; the repeats' own level cancels.
        covariance = centre @ self._covariance @ centre * self._variance * self._widened(min(self._counts))
        normal = generator.multivariate_normal(numpy.zeros(len(self._names)), covariance, size=DRAWS, method="eigh")
        scale = numpy.sqrt(self._freedom / generator.chisquare(self._freedom, size=(DRAWS, 1)))
        winners = (centre @ self._effects + normal * scale).argmax(axis=1)
        return {name: float((winners == i).mean()) for i, name in enumerate(self._names)}

    def _widened(self, repeats: int) -> float:
        return 1 + repeats * self._overlap


def mean_estimate(values: Sequence[float], *, others: Sequence[float] = (), n_images: int, pool: int) -> Estimate:
    """The mean over repeats and its interval, which holds the luck of the seed, of the split, and of the images in the pool.

    Args:
        others: further scores of the same configuration that tell of their spread, but not of the mean.
        images, pool: as for `TwoWayFit`.
    """
    mean = statistics.mean(values)
    groups = [group for group in (values, others) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if freedom:
        variance = sum(sum((value - statistics.mean(group)) ** 2 for value in group) for group in groups) / freedom
        # No number of repeats averages out the luck of the images that all of them share.
        half = math.hypot(_quantile(freedom) * math.sqrt(variance / len(values)), Z95 * math.sqrt(mean * (1 - mean) / pool))
    else:
        half = Z95 * math.sqrt(mean * (1 - mean) / n_images)
    return Estimate(value=mean, interval=(max(0.0, mean - half), min(1.0, mean + half)))


def _quantile(freedom: int) -> float:
    # scipy.stats says the same, for a second and 50 MB; and every search imports this module.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
