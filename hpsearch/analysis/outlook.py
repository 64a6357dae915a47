"""What further trials are expected to bring, and which models are clearly behind. Both come from the accuracies of the trials so far.

The estimate is what the last doubling has brought: the accuracy of the best trial minus the mean accuracy of the best in a random half of
the trials. Later doublings bring less, so the estimate is more likely too high than too low (benchmarks/LOG.md has the figures).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpsearch.analysis.metrics import difference_margin
from hpsearch.config.sections import MIN_TRIALS, MIN_TRIALS_OF_MODEL


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What as many trials again are expected to bring.

    Attributes:
        gain: expected gain of the best accuracy, 0 to 1.
        error: standard error of the best accuracy, from the number of validation images alone. A smaller gain would not be seen.
    """

    gain: float
    error: float

    @property
    def is_small(self) -> bool:
        """Whether the gain is smaller than the standard error."""
        return self.gain < self.error


@dataclass(frozen=True, kw_only=True)
class TrailingModel:
    """A model that not even twice as many trials would be expected to bring near the leading model.

    Attributes:
        trials: number of its trials.
        best: its best accuracy, 0 to 1.
        gain: what as many trials again are expected to add to it.
        leader: name of the leading model.
        leader_trials: number of its trials.
        leader_best: its best accuracy.
    """

    model: str
    trials: int
    best: float
    gain: float
    leader: str
    leader_trials: int
    leader_best: float


def by_model(accuracies: Iterable[tuple[str, float | None]]) -> dict[str, list[float]]:
    """Group the accuracies of trials by model.

    Args:
        accuracies: for each trial its model and its last measured accuracy, 0 to 1. For a stopped trial this is less than it would have
            reached, but most stopped trials would not have been the best. Trials without an accuracy are left out.

    Returns:
        The accuracies of each model.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for model, accuracy in accuracies:
        if accuracy is not None:
            found[model].append(accuracy)
    return found


def gain_of_doubling(accuracies: Sequence[float]) -> float:
    """Return the best of some values minus the mean of the best of a random half of them.

    Args:
        accuracies: at least two values.

    Returns:
        The difference, in the same unit.
    """
    falling = sorted(accuracies, reverse=True)
    n, half = len(falling), len(falling) // 2
    best_of_half, chance = 0.0, half / n  # that the half has this value, and no better one
    for rank, value in enumerate(falling[: n - half + 1], start=1):
        best_of_half += chance * value
        chance *= (n - rank - half + 1) / max(n - rank, 1)  # `max`, because two values leave nothing to divide by at the end
    return falling[0] - best_of_half


def look_ahead(accuracies: Mapping[str, Sequence[float]], n_images: int) -> Outlook | None:
    """Return what as many trials again are expected to bring.

    Args:
        accuracies: the accuracies of each model, as `by_model` returns them.
        n_images: number of validation images.

    Returns:
        The outlook; None if there are fewer than `MIN_TRIALS` trials.
    """
    values = [value for each in accuracies.values() for value in each]
    if len(values) < MIN_TRIALS:
        return None
    best = max(values)
    return Outlook(gain=gain_of_doubling(values), error=math.sqrt(best * (1 - best) / n_images))


def trailing_models(accuracies: Mapping[str, Sequence[float]], n_images: int) -> dict[str, TrailingModel]:
    """Return the models that are clearly behind the leading model.

    Args:
        accuracies: the accuracies of each model, as `by_model` returns them.
        n_images: number of validation images.

    Returns:
        The trailing models by name. As many trials again would not be expected to bring them to the best accuracy of the leading model,
        within what chance explains. A model with fewer than `MIN_TRIALS_OF_MODEL` trials neither leads nor trails.
    """
    tried = {model: values for model, values in accuracies.items() if len(values) >= MIN_TRIALS_OF_MODEL}
    leader = max(tried, key=lambda model: max(tried[model]), default="")
    found = {}
    for model, values in tried.items():
        best, leader_best, gain = max(values), max(tried[leader]), gain_of_doubling(values)
        if best + gain + difference_margin(leader_best, n_images) < leader_best:
            found[model] = TrailingModel(
                model=model,
                trials=len(values),
                best=best,
                gain=gain,
                leader=leader,
                leader_trials=len(tried[leader]),
                leader_best=leader_best,
            )
    return found
