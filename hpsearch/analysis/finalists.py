"""The best few again, with fresh seeds and splits: who runs next, who wins, and by how much.

The best of many single runs is partly luck. So the finalists run again on seeds that had no part in
the search: the first half of the repeats chooses the winner, dropping those that are clearly
behind; the second half, which had no part in the choice, measures it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpsearch.analysis.paired import Estimate, Scores, TwoWayFit, mean_estimate

FIRST_DROP = 2
"""Repeats before anyone can be dropped: a single one has no spread."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration that is run again and again.

    Attributes:
        name: for a person, unlike any other's: `trial 12`.
        trial: its number in the search.
        value: the search's own score of it, 0 to 1.
        is_baseline: what the others have to beat.
    """

    name: str
    trial: int | None
    value: float | None
    model: str
    n_parameters: int | None
    is_baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class FinalistsRound:
    """Where the finalists stand.

    Attributes:
        winner: chosen, but perhaps not yet measured.
        contenders: who could still be the best.
        dropped: who was clearly behind, and after how many repeats.
        wanted: runs that are needed to go on, the most useful first: name and repeat.
        spare: runs that will most likely be needed, for workers with nothing better to do.
        chosen_by: the last repeat that had a part in the choice.
    """

    winner: str | None
    remaining: tuple[str, ...]
    dropped: Mapping[str, int]
    required_runs: tuple[tuple[str, int], ...]
    optional_runs: tuple[tuple[str, int], ...]
    selected_after: int


def selection_repeats(seeds: int) -> int:
    """Repeats that choose the winner, out of so many: the first half."""
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
    """What the scores so far decide, and which runs come next.

    It depends on the scores alone, not on the order in which they came.

    Args:
        seeds: repeats of each, at most: 1 to `seeds // 2` choose, the rest measure.
        images, pool: as for `hpsearch.analysis.paired.TwoWayFit`.
        failed: those that cannot be trained.
    """
    choosing = selection_repeats(seeds)
    able = [candidate for candidate in candidates if candidate.name not in failed]
    names = [candidate.name for candidate in able]
    baseline = next((candidate.name for candidate in able if candidate.is_baseline), None)
    remaining, dropped = list(names), dict.fromkeys(failed, 0)
    measuring = range(choosing + 1, seeds + 1)
    always = [] if baseline is None else [(baseline, repeat) for repeat in measuring]
    selected_after = choosing
    for repeat in range(1, choosing + 1):
        missing = [name for name in remaining if repeat not in scores.get(name, {})]
        if missing:
            ranked = _ranked(remaining, scores, repeat - 1)
            optional_runs = _missing([*always, *((name, later) for later in range(repeat + 1, choosing + 1) for name in ranked)], scores)
            required_runs = tuple((name, repeat) for name in ranked if name in missing)
            return FinalistsRound(
                winner=None,
                remaining=tuple(remaining),
                dropped=dropped,
                required_runs=required_runs,
                optional_runs=optional_runs,
                selected_after=repeat,
            )
        if FIRST_DROP <= repeat < choosing and len(remaining) > 1:
            behind = _clearly_behind(remaining, scores, repeat, n_images=n_images, pool=pool)
            dropped.update(dict.fromkeys(behind, repeat))
            remaining = [name for name in remaining if name not in behind]
        if len(remaining) == 1:
            selected_after = repeat
            break
    winner = _ranked(remaining, scores, selected_after)[0] if remaining else None
    measured = list(dict.fromkeys([*([winner] if winner else []), *([baseline] if baseline else []), *remaining]))
    required_runs = _missing([(name, repeat) for repeat in measuring for name in measured], scores)
    return FinalistsRound(
        winner=winner,
        remaining=tuple(remaining),
        dropped=dropped,
        required_runs=required_runs,
        optional_runs=(),
        selected_after=selected_after,
    )


def _ranked(names: Sequence[str], scores: Scores, repeats: int) -> list[str]:
    """The best first, by their mean over the first so many repeats, which all have."""
    if repeats == 0:
        return list(names)
    return sorted(names, key=lambda name: (-statistics.mean(scores[name][repeat] for repeat in range(1, repeats + 1)), names.index(name)))


def _clearly_behind(names: Sequence[str], scores: Scores, repeats: int, *, n_images: int, pool: int) -> list[str]:
    first = {name: {repeat: scores[name][repeat] for repeat in range(1, repeats + 1)} for name in names}
    fit = TwoWayFit(first, n_images=n_images, pool=pool)
    leader = _ranked(names, scores, repeats)[0]
    return [name for name in names if name != leader and fit.difference(name, leader).interval[1] < 0]


def _missing(runs: Sequence[tuple[str, int]], scores: Scores) -> tuple[tuple[str, int], ...]:
    return tuple((name, repeat) for name, repeat in runs if repeat not in scores.get(name, {}))


def _counted(candidate: Candidate, own: Mapping[int, float], now: FinalistsRound, choosing: int) -> dict[int, float]:
    """The runs that the plan asked for: what idle workers ran besides depends on their number, and the verdict must not."""
    last = now.dropped.get(candidate.name, now.selected_after)
    measured = candidate.is_baseline or candidate.name not in now.dropped
    return {repeat: value for repeat, value in own.items() if repeat <= last or (repeat > choosing and measured)}


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """What the repeats say of one candidate.

    Attributes:
        scores: by repeat.
        mean: over the repeats that had no part in the choice, where it ran in them, else over all of its own.
        deviation: standard deviation from repeat to repeat; None for a single one.
        best: probability that none of the others is better.
        flattery: the search's own score less the mean.
        behind: what the winner has over it; None for the winner, or before there is one.
        is_tied: the repeats cannot tell it from the winner.
        dropped_after: repeats after which it was clearly behind; None if it never was.
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
    """What the finalists' repeats come down to.

    Attributes:
        finalists: the winner first, then by mean.
        gain: what the winner has over the baseline, on repeats that had no part in the choice; None without a baseline.
        seeds: repeats of each, at most; those up to `selected_after` chose.
        is_over: no run is missing.
        failed: those that could not be trained.
    """

    finalists: tuple[Finalist, ...]
    winner: Finalist | None
    gain: Estimate | None
    seeds: int
    selected_after: int
    is_over: bool
    failed: tuple[str, ...] = field(default=())

    @property
    def selection_repeats(self) -> int:
        """Repeats that may have a part in the choice; those after it measure."""
        return selection_repeats(self.seeds)

    @property
    def tied(self) -> tuple[Finalist, ...]:
        """Those that the repeats cannot tell from the winner."""
        return tuple(finalist for finalist in self.finalists if finalist.is_tied)

    @property
    def smaller(self) -> Finalist | None:
        """The smallest of those tied with the winner, where it is smaller than the winner."""
        if self.winner is None:
            return None
        known = [each for each in self.tied if each.candidate.n_parameters is not None]
        smallest = min(known, key=lambda each: each.candidate.n_parameters or 0, default=None)
        if smallest is None or (smallest.candidate.n_parameters or 0) >= (self.winner.candidate.n_parameters or 0):
            return None
        return smallest

    def of_trial(self, number: int) -> Finalist | None:
        """What the repeats say of one trial of the search."""
        return next((each for each in self.finalists if each.candidate.trial == number), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "winner": None if self.winner is None else self.winner.candidate.name,
            "gain_over_baseline": None if self.gain is None else {"value": self.gain.value, "interval": list(self.gain.interval)},
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
                    "behind_winner": None if each.behind is None else {"value": each.behind.value, "interval": list(each.behind.interval)},
                    "is_tied": each.is_tied,
                    "dropped_after": each.dropped_after,
                    "scores": {str(repeat): score for repeat, score in sorted(each.scores.items())},
                }
                for each in self.finalists
            ],
        }


def evaluate_finalists(
    candidates: Sequence[Candidate],
    scores: Scores,
    *,
    seeds: int,
    n_images: int,
    pool: int,
    failed: frozenset[str] = frozenset(),
) -> FinalistsResult:
    """The verdict on the scores so far; the arguments are those of `next_round`."""
    now = next_round(candidates, scores, seeds=seeds, n_images=n_images, pool=pool, failed=failed)
    choosing = selection_repeats(seeds)
    scores = {candidate.name: _counted(candidate, scores.get(candidate.name, {}), now, choosing) for candidate in candidates}
    ran = [candidate for candidate in candidates if scores[candidate.name]]
    if not ran:
        return FinalistsResult(
            finalists=(), winner=None, gain=None, seeds=seeds, selected_after=now.selected_after, is_over=False, failed=tuple(failed)
        )
    fresh = {name: {repeat: value for repeat, value in row.items() if repeat > choosing} for name, row in scores.items()}
    everything = TwoWayFit({candidate.name: scores[candidate.name] for candidate in ran}, n_images=n_images, pool=pool)
    probabilities = everything.best_probabilities(seed=0)
    unbiased = {candidate.name: fresh[candidate.name] for candidate in ran if fresh[candidate.name]}
    fresh_fit = TwoWayFit(unbiased, n_images=n_images, pool=pool) if unbiased else everything

    def over(winner: str, other: str) -> Estimate:
        fit = fresh_fit if winner in unbiased and other in unbiased else everything
        return fit.difference(winner, other)

    finalists = []
    for candidate in ran:
        own = scores[candidate.name]
        judged = fresh[candidate.name] or own
        rest = [value for repeat, value in own.items() if repeat not in judged]
        mean = mean_estimate(list(judged.values()), others=rest, n_images=n_images, pool=pool)
        behind = None if now.winner in (None, candidate.name) else over(str(now.winner), candidate.name)
        finalists.append(
            Finalist(
                candidate=candidate,
                scores=dict(own),
                mean=mean,
                deviation=statistics.stdev(own.values()) if len(own) > 1 else None,
                best=probabilities[candidate.name],
                optimism=None if candidate.value is None else candidate.value - mean.value,
                behind=behind,
                is_tied=behind is not None and candidate.name not in now.dropped and behind.interval[0] <= 0,
                dropped_after=now.dropped.get(candidate.name),
            )
        )
    finalists.sort(key=lambda each: (each.candidate.name != now.winner, -each.mean.value))
    baseline = next((candidate.name for candidate in ran if candidate.is_baseline), None)
    return FinalistsResult(
        finalists=tuple(finalists),
        winner=finalists[0] if now.winner is not None else None,
        gain=over(now.winner, baseline) if now.winner and baseline and baseline != now.winner else None,
        seeds=seeds,
        selected_after=now.selected_after,
        is_over=not now.required_runs,
        failed=tuple(sorted(failed)),
    )
