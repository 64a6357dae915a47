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
class Round:
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
    contenders: tuple[str, ...]
    dropped: Mapping[str, int]
    wanted: tuple[tuple[str, int], ...]
    spare: tuple[tuple[str, int], ...]
    chosen_by: int


def choosing_repeats(seeds: int) -> int:
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
) -> Round:
    """What the scores so far decide, and which runs come next.

    It depends on the scores alone, not on the order in which they came.

    Args:
        seeds: repeats of each, at most: 1 to `seeds // 2` choose, the rest measure.
        images, pool: as for `hpsearch.analysis.paired.TwoWayFit`.
        failed: those that cannot be trained.
    """
    choosing = choosing_repeats(seeds)
    able = [candidate for candidate in candidates if candidate.name not in failed]
    names = [candidate.name for candidate in able]
    baseline = next((candidate.name for candidate in able if candidate.is_baseline), None)
    contenders, dropped = list(names), dict.fromkeys(failed, 0)
    measuring = range(choosing + 1, seeds + 1)
    always = [] if baseline is None else [(baseline, repeat) for repeat in measuring]
    chosen_by = choosing
    for repeat in range(1, choosing + 1):
        missing = [name for name in contenders if repeat not in scores.get(name, {})]
        if missing:
            ranked = _ranked(contenders, scores, repeat - 1)
            spare = _missing([*always, *((name, later) for later in range(repeat + 1, choosing + 1) for name in ranked)], scores)
            wanted = tuple((name, repeat) for name in ranked if name in missing)
            return Round(winner=None, contenders=tuple(contenders), dropped=dropped, wanted=wanted, spare=spare, chosen_by=repeat)
        if FIRST_DROP <= repeat < choosing and len(contenders) > 1:
            behind = _clearly_behind(contenders, scores, repeat, n_images=n_images, pool=pool)
            dropped.update(dict.fromkeys(behind, repeat))
            contenders = [name for name in contenders if name not in behind]
        if len(contenders) == 1:
            chosen_by = repeat
            break
    winner = _ranked(contenders, scores, chosen_by)[0] if contenders else None
    measured = list(dict.fromkeys([*([winner] if winner else []), *([baseline] if baseline else []), *contenders]))
    wanted = _missing([(name, repeat) for repeat in measuring for name in measured], scores)
    return Round(winner=winner, contenders=tuple(contenders), dropped=dropped, wanted=wanted, spare=(), chosen_by=chosen_by)


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


def _counted(candidate: Candidate, own: Mapping[int, float], now: Round, choosing: int) -> dict[int, float]:
    """The runs that the plan asked for: what idle workers ran besides depends on their number, and the verdict must not."""
    last = now.dropped.get(candidate.name, now.chosen_by)
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
    flattery: float | None
    behind: Estimate | None
    is_tied: bool
    dropped_after: int | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the finalists' repeats come down to.

    Attributes:
        finalists: the winner first, then by mean.
        gain: what the winner has over the baseline, on repeats that had no part in the choice; None without a baseline.
        seeds: repeats of each, at most; those up to `chosen_by` chose.
        is_over: no run is missing.
        failed: those that could not be trained.
    """

    finalists: tuple[Finalist, ...]
    winner: Finalist | None
    gain: Estimate | None
    seeds: int
    chosen_by: int
    is_over: bool
    failed: tuple[str, ...] = field(default=())

    @property
    def choosing(self) -> int:
        """Repeats that may have a part in the choice; those after it measure."""
        return choosing_repeats(self.seeds)

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
            "chosen_by": self.chosen_by,
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
                    "flattery": each.flattery,
                    "behind_winner": None if each.behind is None else {"value": each.behind.value, "interval": list(each.behind.interval)},
                    "is_tied": each.is_tied,
                    "dropped_after": each.dropped_after,
                    "scores": {str(repeat): score for repeat, score in sorted(each.scores.items())},
                }
                for each in self.finalists
            ],
        }


def judge(
    candidates: Sequence[Candidate],
    scores: Scores,
    *,
    seeds: int,
    n_images: int,
    pool: int,
    failed: frozenset[str] = frozenset(),
) -> Verdict:
    """The verdict on the scores so far; the arguments are those of `next_round`."""
    now = next_round(candidates, scores, seeds=seeds, n_images=n_images, pool=pool, failed=failed)
    choosing = choosing_repeats(seeds)
    scores = {candidate.name: _counted(candidate, scores.get(candidate.name, {}), now, choosing) for candidate in candidates}
    ran = [candidate for candidate in candidates if scores[candidate.name]]
    if not ran:
        return Verdict(finalists=(), winner=None, gain=None, seeds=seeds, chosen_by=now.chosen_by, is_over=False, failed=tuple(failed))
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
                flattery=None if candidate.value is None else candidate.value - mean.value,
                behind=behind,
                is_tied=behind is not None and candidate.name not in now.dropped and behind.interval[0] <= 0,
                dropped_after=now.dropped.get(candidate.name),
            )
        )
    finalists.sort(key=lambda each: (each.candidate.name != now.winner, -each.mean.value))
    baseline = next((candidate.name for candidate in ran if candidate.is_baseline), None)
    return Verdict(
        finalists=tuple(finalists),
        winner=finalists[0] if now.winner is not None else None,
        gain=over(now.winner, baseline) if now.winner and baseline and baseline != now.winner else None,
        seeds=seeds,
        chosen_by=now.chosen_by,
        is_over=not now.wanted,
        failed=tuple(sorted(failed)),
    )
