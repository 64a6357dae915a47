"""The finalists are the best few configurations of a search. They run again with new seeds and splits.

The best score of many single runs is optimistic, so the finalists use seeds that the search did not use. The first half of the
repeats selects the winner and drops candidates that are clearly worse. The second half measures the winner.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpsearch.analysis.metrics import Estimate
from hpsearch.analysis.paired import Scores, TwoWayFit, mean_estimate

FIRST_DROP = 2
"""Number of repeats before a candidate can be dropped. One repeat is too few to show the variance."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration that runs with several seeds.

    Attributes:
        name: unique name for a person, such as `trial 12`.
        trial: number of its trial in the search.
        value: validation accuracy in the search, 0 to 1.
        is_baseline: whether this candidate is the baseline, with which the winner is compared.
    """

    name: str
    trial: int | None
    value: float | None
    model: str
    n_parameters: int | None
    is_baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class FinalistsRound:
    """The current state of the finalists, and the next runs as pairs of name and repeat.

    Attributes:
        winner: name of the selected candidate, which may not be measured yet; None before the selection.
        remaining: names of the candidates that can still win.
        dropped: names of the dropped candidates, each with the number of repeats before the drop (0 if training failed).
        required_runs: runs that the next decision needs, most useful first.
        optional_runs: runs that will probably be required later. Idle workers may do them now.
        selected_after: the last repeat that counts for the selection.
    """

    winner: str | None
    remaining: tuple[str, ...]
    dropped: Mapping[str, int]
    required_runs: tuple[tuple[str, int], ...]
    optional_runs: tuple[tuple[str, int], ...]
    selected_after: int


def selection_repeats(seeds: int) -> int:
    """Return the number of repeats that select the winner, which is half of all repeats.

    Args:
        seeds: maximum number of repeats of each candidate.

    Returns:
        The number of repeats, at least 1.
    """
    return max(1, seeds // 2)


def next_round(
    candidates: Sequence[Candidate],
    scores: Scores,
    *,
    seeds: int,
    n_images: int,
    pool: int,
    failed: frozenset[str] = frozenset(),
) -> FinalistsRound:
    """Decide from the scores so far which runs come next.

    A candidate is a configuration from the search. One of the candidates may be the baseline (`Candidate.is_baseline`). A run trains one
    candidate with one seed; the runs of a candidate are its repeats. Repeat 1 uses the same seed for all candidates, repeat 2 another
    seed, and so on. The seed also divides the training images into images to train on and validation images.

    1. Selection: the next runs are the next repeat of all candidates that can still win. A candidate is dropped when its mean is clearly
       worse, for which `n_images` and `pool` give the variance. The selection ends when one candidate can still win, or after
       `selection_repeats(seeds)` repeats. The candidate with the best mean is the winner.
    2. Measurement: the next runs are all later repeats of the winner, the baseline, and the others that were not dropped.

    When all of these have scores, no run comes next.

    The order in which the scores arrived has no influence on the result.

    Args:
        candidates: the configurations to compare, with the baseline if there is one.
        scores: accuracy of each finished run.
        seeds: maximum number of repeats of each candidate. Repeats 1 to `selection_repeats(seeds)` select the winner, the others measure.
        n_images: number of validation images in a run.
        pool: number of training images from which a run draws its validation images.
        failed: names of candidates that cannot be trained.

    Returns:
        The current state and the next runs.
    """
    last = selection_repeats(seeds)
    able = [candidate for candidate in candidates if candidate.name not in failed]
    baseline = [candidate.name for candidate in able if candidate.is_baseline][:1]
    remaining, dropped = [candidate.name for candidate in able], dict.fromkeys(failed, 0)
    measuring = range(last + 1, seeds + 1)
    winner, selected_after = None, last
    required: list[tuple[str, int]] = []
    optional: list[tuple[str, int]] = []
    for repeat in range(1, last + 1):
        if any(repeat not in scores.get(name, {}) for name in remaining):
            ranked, selected_after = _rank_by_mean(remaining, scores, repeat - 1), repeat
            required = [(name, repeat) for name in ranked]
            optional = [(name, later) for name in baseline for later in measuring]
            optional += [(name, later) for later in range(repeat + 1, last + 1) for name in ranked]
            break
        if FIRST_DROP <= repeat < last and len(remaining) > 1:
            behind = _clearly_behind(remaining, scores, repeat, n_images=n_images, pool=pool)
            dropped.update(dict.fromkeys(behind, repeat))
            remaining = [name for name in remaining if name not in behind]
        if len(remaining) == 1:
            selected_after = repeat
            break
    if not required:
        winner = _rank_by_mean(remaining, scores, selected_after)[0] if remaining else None
        names = dict.fromkeys([*([winner] if winner else []), *baseline, *remaining])
        required = [(name, repeat) for repeat in measuring for name in names]
    return FinalistsRound(
        winner=winner,
        remaining=tuple(remaining),
        dropped=dropped,
        required_runs=_missing(required, scores),
        optional_runs=_missing(optional, scores),
        selected_after=selected_after,
    )


def _rank_by_mean(names: Sequence[str], scores: Scores, repeats: int) -> list[str]:
    """Rank the candidates by their mean over the first repeats. Every candidate must have these repeats."""
    if repeats == 0:
        return list(names)
    return sorted(names, key=lambda name: -statistics.mean(scores[name][repeat] for repeat in range(1, repeats + 1)))


def _clearly_behind(names: Sequence[str], scores: Scores, repeats: int, *, n_images: int, pool: int) -> list[str]:
    first = {name: {repeat: scores[name][repeat] for repeat in range(1, repeats + 1)} for name in names}
    fit = TwoWayFit(first, n_images=n_images, pool=pool)
    leader = _rank_by_mean(names, scores, repeats)[0]
    return [name for name in names if name != leader and fit.difference(name, leader).interval[1] < 0]


def _missing(runs: Sequence[tuple[str, int]], scores: Scores) -> tuple[tuple[str, int], ...]:
    return tuple((name, repeat) for name, repeat in runs if repeat not in scores.get(name, {}))


def _counted_scores(candidate: Candidate, own: Mapping[int, float], current: FinalistsRound, last_selection: int) -> dict[int, float]:
    """Return the scores of required runs only. Optional runs depend on the number of workers, but the result must not."""
    last = current.dropped.get(candidate.name, current.selected_after)
    measured = candidate.is_baseline or candidate.name not in current.dropped
    return {repeat: value for repeat, value in own.items() if repeat <= last or (repeat > last_selection and measured)}


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """The result of one candidate.

    Attributes:
        scores: repeat to accuracy.
        mean: mean accuracy over the repeats that measure, or over all repeats if no repeat measures this candidate.
        deviation: standard deviation between repeats; None for a single repeat.
        best: probability that this candidate is the best.
        optimism: accuracy in the search minus `mean`.
        behind: accuracy of the winner minus accuracy of this candidate; None for the winner, or before the selection.
        is_tied: whether the repeats cannot distinguish this candidate from the winner.
        dropped_after: number of repeats after which this candidate was dropped; None if it was not dropped.
    """

    candidate: Candidate
    scores: Mapping[int, float]
    mean: Estimate
    deviation: float | None
    best: float
    optimism: float | None
    behind: Estimate | None
    is_tied: bool
    dropped_after: int | None


@dataclass(frozen=True, kw_only=True)
class FinalistsResult:
    """The result of all finalists so far.

    Attributes:
        finalists: the winner, then the other finalists from the highest mean to the lowest.
        gain: accuracy of the winner minus accuracy of the baseline; None without a baseline or if the baseline wins.
        seeds: maximum number of repeats of each candidate.
        selected_after: the last repeat that counts for the selection.
        is_over: whether all runs are done.
        failed: names of candidates that cannot be trained.
    """

    finalists: tuple[Finalist, ...]
    winner: Finalist | None
    gain: Estimate | None
    seeds: int
    selected_after: int
    is_over: bool
    failed: tuple[str, ...]

    @property
    def tied(self) -> tuple[Finalist, ...]:
        """The finalists that the repeats cannot distinguish from the winner."""
        return tuple(finalist for finalist in self.finalists if finalist.is_tied)

    @property
    def smaller(self) -> Finalist | None:
        """The tied finalist with the fewest parameters; None if it has no fewer parameters than the winner."""
        known = [each for each in self.tied if each.candidate.n_parameters is not None]
        smallest = min(known, key=_n_parameters, default=None)
        return smallest if smallest and self.winner and _n_parameters(smallest) < _n_parameters(self.winner) else None

    def of_trial(self, number: int) -> Finalist | None:
        """Return the finalist of one trial of the search.

        Args:
            number: number of the trial.

        Returns:
            The finalist; None if the trial is no finalist.
        """
        return next((each for each in self.finalists if each.candidate.trial == number), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON.

        Returns:
            All figures, and one entry for each finalist.
        """
        return {
            "winner": None if self.winner is None else self.winner.candidate.name,
            "gain_over_baseline": self.gain and asdict(self.gain),
            "seeds": self.seeds,
            "chosen_by": self.selected_after,
            "is_over": self.is_over,
            "failed": list(self.failed),
            "finalists": [
                {
                    "name": each.candidate.name,
                    "trial": each.candidate.trial,
                    "model": each.candidate.model,
                    "n_parameters": each.candidate.n_parameters,
                    "is_baseline": each.candidate.is_baseline,
                    "mean": each.mean.value,
                    "interval": list(each.mean.interval),
                    "deviation": each.deviation,
                    "probability_of_best": each.best,
                    "search_value": each.candidate.value,
                    "optimism": each.optimism,
                    "behind_winner": each.behind and asdict(each.behind),
                    "is_tied": each.is_tied,
                    "dropped_after": each.dropped_after,
                    "scores": {str(repeat): score for repeat, score in sorted(each.scores.items())},
                }
                for each in self.finalists
            ],
        }


def _n_parameters(finalist: Finalist) -> int:
    return finalist.candidate.n_parameters or 0


def evaluate_finalists(
    candidates: Sequence[Candidate],
    scores: Scores,
    *,
    seeds: int,
    n_images: int,
    pool: int,
    failed: frozenset[str] = frozenset(),
) -> FinalistsResult:
    """Summarise the scores so far.

    Args:
        candidates: all candidates.
        scores: accuracy of each finished run.
        seeds: maximum number of repeats of each candidate.
        n_images: validation images in each split.
        pool: training images from which every split's validation images are drawn.
        failed: names of candidates that cannot be trained.

    Returns:
        The result. Without any run it has no finalists.
    """
    current = next_round(candidates, scores, seeds=seeds, n_images=n_images, pool=pool, failed=failed)
    last = selection_repeats(seeds)
    counted = {candidate.name: _counted_scores(candidate, scores.get(candidate.name, {}), current, last) for candidate in candidates}
    ran = [candidate for candidate in candidates if counted[candidate.name]]
    counted = {candidate.name: counted[candidate.name] for candidate in ran}
    fresh = {name: row for name, own in counted.items() if (row := {repeat: value for repeat, value in own.items() if repeat > last})}
    fit_of_all = TwoWayFit(counted, n_images=n_images, pool=pool) if counted else None
    fit_of_fresh = TwoWayFit(fresh, n_images=n_images, pool=pool) if fresh else None
    probabilities = fit_of_all.best_probabilities(seed=0) if fit_of_all else {}
    winner = current.winner

    def lead_over(other: str) -> Estimate | None:
        """Return the winner's accuracy minus the accuracy of another candidate. If both have measuring repeats, only these count."""
        fit = fit_of_fresh if {winner, other} <= set(fresh) else fit_of_all
        return None if fit is None or winner in (None, other) else fit.difference(str(winner), other)

    finalists = []
    for candidate in ran:
        own = counted[candidate.name]
        scored = fresh.get(candidate.name, own)
        others = [value for repeat, value in own.items() if repeat not in scored]
        mean = mean_estimate(list(scored.values()), others=others, n_images=n_images, pool=pool)
        behind = lead_over(candidate.name)
        finalists.append(
            Finalist(
                candidate=candidate,
                scores=own,
                mean=mean,
                deviation=statistics.stdev(own.values()) if len(own) > 1 else None,
                best=probabilities[candidate.name],
                optimism=None if candidate.value is None else candidate.value - mean.value,
                behind=behind,
                is_tied=behind is not None and candidate.name not in current.dropped and behind.interval[0] <= 0,
                dropped_after=current.dropped.get(candidate.name),
            )
        )
    finalists.sort(key=lambda each: (each.candidate.name != winner, -each.mean.value))
    baseline = next((candidate.name for candidate in ran if candidate.is_baseline), None)
    return FinalistsResult(
        finalists=tuple(finalists),
        winner=finalists[0] if winner is not None else None,
        gain=None if baseline is None else lead_over(baseline),
        seeds=seeds,
        selected_after=current.selected_after,
        is_over=bool(ran) and not current.required_runs,
        failed=tuple(sorted(failed)),
    )
