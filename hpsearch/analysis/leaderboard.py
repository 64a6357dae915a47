"""Ranks, intervals, and what the search cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.metrics import Z95, wilson_interval
from hpsearch.storage.records import BASELINE, TrialKey, TrialRow

TrialT = TypeVar("TrialT", TrialRow, FrozenTrial)


@dataclass(frozen=True, kw_only=True)
class RankedTrial:
    """A complete trial in its place.

    Attributes:
        interval: 95 % interval of its accuracy, from the number of validation images alone.
        unresolved: the search cannot tell it from the best.
    """

    rank: int
    trial: TrialRow
    value: float
    interval: tuple[float, float]
    unresolved: bool


@dataclass(frozen=True, kw_only=True)
class BaselineGain:
    """What the best has over the best baseline, in accuracy.

    Attributes:
        margin: a difference within it could be chance, of the validation images alone.
    """

    baseline: RankedTrial
    difference: float
    margin: float

    @property
    def is_significant(self) -> bool:
        """Whether the gain is more than chance."""
        return self.difference > self.margin


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A study's complete trials, best first, and what became of the others.

    Attributes:
        smallest: of those that the search cannot tell from the best, the one with the fewest parameters.
        margin: a difference from the best below it is unresolved.
        saved_seconds: what pruned trials would have gone on to take, at their own pace.
    """

    ranking: tuple[RankedTrial, ...]
    counts: dict[str, int]
    total: int
    validation_images: int
    margin: float
    seconds: float
    saved_seconds: float
    gain: BaselineGain | None

    @property
    def best(self) -> RankedTrial | None:
        """The first, if any trial is complete."""
        return self.ranking[0] if self.ranking else None

    @property
    def unresolved(self) -> tuple[RankedTrial, ...]:
        """The best and those that the search cannot tell from it."""
        return tuple(ranked for ranked in self.ranking if ranked.unresolved)

    @property
    def smallest(self) -> RankedTrial | None:
        """Of the unresolved, the one with the fewest parameters."""
        return min(self.unresolved, key=lambda ranked: (ranked.trial.n_parameters or math.inf, ranked.rank), default=None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "trials": self.counts,
            "validation_images": self.validation_images,
            "unresolved_below": self.margin,
            "seconds": self.seconds,
            "seconds_saved_by_pruning": self.saved_seconds,
            "gain_over_baseline": None if self.gain is None else {"difference": self.gain.difference, "margin": self.gain.margin},
            "leaderboard": [
                {
                    "rank": ranked.rank,
                    "trial": ranked.trial.number,
                    "val_accuracy": ranked.value,
                    "interval": list(ranked.interval),
                    "unresolved": ranked.unresolved,
                    "model": ranked.trial.model,
                    "n_parameters": ranked.trial.n_parameters,
                    "train_accuracy": last_train_accuracy(ranked.trial),
                    "epochs": len(ranked.trial.epochs),
                    "seconds": ranked.trial.seconds,
                    "params": dict(ranked.trial.params),
                }
                for ranked in self.ranking
            ],
        }


def rank(trials: Iterable[TrialT], model: str | None = None) -> list[TrialT]:
    """Return the complete trials, best first: highest validation accuracy, then fewest parameters, then lowest number.

    Args:
        trials: Typed rows, or Optuna's own trials.
        model: Rank the trials of this model only; needs typed rows.

    Returns:
        The ranked trials. Pruned, failed and unfinished ones are left out.
    """
    complete = [
        trial
        for trial in trials
        if trial.state in ("complete", TrialState.COMPLETE)
        and trial.value is not None
        and (model is None or (isinstance(trial, TrialRow) and trial.model == model))
    ]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), _n_parameters(trial), trial.number))


def difference_margin(share: float, count: int) -> float:
    """Two configurations measured on `count` images each differ by less than this by chance, 95 times in 100."""
    return Z95 * math.sqrt(2 * share * (1 - share) / count)


def make_leaderboard(trials: Sequence[TrialRow], *, validation_images: int) -> Leaderboard:
    """The leaderboard of all trials of a study."""
    ranked = [(trial.value or 0.0, trial) for trial in rank(trials)]
    best = ranked[0][0] if ranked else 0.0
    margin = difference_margin(best, validation_images)
    ranking = tuple(
        RankedTrial(
            rank=position,
            trial=trial,
            value=value,
            interval=wilson_interval(value, validation_images),
            unresolved=value == best or best - value < margin,
        )
        for position, (value, trial) in enumerate(ranked, start=1)
    )
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "fail", "running", "waiting")}
    return Leaderboard(
        ranking=ranking,
        counts=counts,
        total=len(trials),
        validation_images=validation_images,
        margin=margin,
        seconds=sum(trial.seconds for trial in trials),
        saved_seconds=sum(map(_saved, trials)),
        gain=_gain(ranking, margin),
    )


def last_train_accuracy(trial: TrialRow) -> float | None:
    """Training accuracy after the last epoch."""
    return trial.epochs[-1].train_accuracy if trial.epochs else None


def settings(trial: TrialRow) -> str:
    """Return the words of `setting_words` as one text.

    Args:
        trial: any trial.

    Returns:
        `adam batch_size=64 lr=0.0031`.
    """
    return " ".join(setting_words(trial))


def setting_words(trial: TrialRow) -> list[str]:
    """Return what was sampled, without the model; in a follow-up study what is repeated.

    Args:
        trial: any trial.

    Returns:
        Short words such as `adam`, `batch_size=64`, `lr=0.0031`.
    """
    if trial.repeat is not None:
        return [f"{trial.repeat[0]}, seed {trial.repeat[1]}"]
    shown: list[str] = []
    for name, value in sorted(trial.params.items(), key=lambda item: ("." in item[0], item[0])):
        short = name.rpartition(".")[2]
        if name == "model":
            continue
        if name in ("optimizer", "schedule"):
            shown.insert(0, str(value))
        else:
            shown.append(f"{short}={value:.3g}" if isinstance(value, float) else f"{short}={str(value).lower()}")
    return shown


def _n_parameters(trial: TrialRow | FrozenTrial) -> float:
    known = trial.n_parameters if isinstance(trial, TrialRow) else trial.user_attrs.get(TrialKey.N_PARAMETERS)
    return math.inf if known is None else known


def _gain(ranking: Iterable[RankedTrial], margin: float) -> BaselineGain | None:
    ordered = list(ranking)
    baselines = [ranked for ranked in ordered if ranked.trial.origin == BASELINE]
    if not baselines:
        return None
    return BaselineGain(baseline=baselines[0], difference=ordered[0].value - baselines[0].value, margin=margin)


def _saved(trial: TrialRow) -> float:
    if trial.state != "pruned" or trial.config is None or not trial.epochs:
        return 0.0
    return (trial.config.epochs - len(trial.epochs)) * trial.seconds / len(trial.epochs)
