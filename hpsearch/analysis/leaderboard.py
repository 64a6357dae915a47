"""Trials ranked by validation accuracy, with intervals and ties, and trials as flat records for a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.metrics import difference_margin, wilson_interval
from hpsearch.analysis.outlook import Outlook, TrailingModel, by_model, look_ahead, trailing_models
from hpsearch.storage.records import BASELINE, TrialKey, TrialRow

N_BEST = 3
"""A pruner is wrong if it stops a trial that would have been among this number of best trials."""
STATES = ("complete", "pruned", "fail", "running", "paused", "waiting")

TrialT = TypeVar("TrialT", TrialRow, FrozenTrial)


@dataclass(frozen=True, kw_only=True)
class RankedTrial:
    """A complete trial with its rank.

    Attributes:
        rank: rank of the trial. The best trial has rank 1.
        val_accuracy: validation accuracy after the last epoch, 0 to 1.
        interval: 95 % interval of `val_accuracy`, from the number of validation images alone.
        unresolved: whether the search cannot distinguish this trial from the best trial.
    """

    rank: int
    trial: TrialRow
    val_accuracy: float
    interval: tuple[float, float]
    unresolved: bool


@dataclass(frozen=True, kw_only=True)
class BaselineGain:
    """The accuracy of the best trial minus the accuracy of the best baseline.

    Attributes:
        margin: 95 % margin, from the number of validation images alone. A smaller difference may be chance.
    """

    baseline: RankedTrial
    difference: float
    margin: float

    @property
    def is_significant(self) -> bool:
        """Whether the difference is larger than its margin."""
        return self.difference > self.margin


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What became of trials that the pruner would have stopped, and that were trained to their end all the same.

    Attributes:
        trials: number of these trials.
        wrong: how many of them are among the best `N_BEST` trials of the study.
        interval: 95 % interval of the share of stopped trials that would have been among them, 0 to 1.
    """

    trials: int
    wrong: int
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The complete trials of a study, best first, and totals of all its trials.

    Attributes:
        counts: trials by state.
        margin: a trial is unresolved if its accuracy is less than this margin below the best accuracy.
        seconds: training time of all trials.
        saved_seconds: estimated time that the pruned trials would have needed for their remaining epochs.
        gain: gain over the best baseline; None without a complete baseline.
        audit: how often the pruner was wrong; None if no audited trial is complete.
        outlook: what as many trials again are expected to bring; None if there are too few trials to tell.
        trailing: the models that are clearly behind the leading model, by name.
    """

    ranking: tuple[RankedTrial, ...]
    counts: dict[str, int]
    total: int
    validation_images: int
    margin: float
    seconds: float
    saved_seconds: float
    gain: BaselineGain | None
    audit: AuditResult | None
    outlook: Outlook | None
    trailing: Mapping[str, TrailingModel]

    @property
    def best(self) -> RankedTrial | None:
        """The best trial; None if no trial is complete."""
        return self.ranking[0] if self.ranking else None

    @property
    def unresolved(self) -> tuple[RankedTrial, ...]:
        """The best trial, and the trials that the search cannot distinguish from the best trial."""
        return tuple(ranked for ranked in self.ranking if ranked.unresolved)

    @property
    def smallest(self) -> RankedTrial | None:
        """The unresolved trial with the fewest parameters."""
        return min(self.unresolved, key=lambda ranked: (_n_parameters(ranked.trial), ranked.rank), default=None)

    def top(self, count: int) -> tuple[RankedTrial, ...]:
        """Return the best few trials. Add the best trial of each model that has no trial among them.

        Args:
            count: number of trials before the best trials of other models are added.

        Returns:
            The trials by rank.
        """
        best_of_models = {ranked.trial.model: ranked for ranked in reversed(self.ranking)}.values()
        return tuple(ranked for ranked in self.ranking if ranked.rank <= count or ranked in best_of_models)

    def to_dict(self) -> dict[str, Any]:
        """Return the leaderboard for JSON.

        Returns:
            The totals, and one entry for each complete trial.
        """
        return {
            "trials": self.counts,
            "validation_images": self.validation_images,
            "unresolved_below": self.margin,
            "seconds": self.seconds,
            "seconds_saved_by_pruning": self.saved_seconds,
            "audit": None if self.audit is None else {**asdict(self.audit), "interval": list(self.audit.interval)},
            "expected_of_as_many_trials_again": None if self.outlook is None else asdict(self.outlook),
            "trailing_models": [asdict(each) for each in self.trailing.values()],
            "gain_over_baseline": None if self.gain is None else {"difference": self.gain.difference, "margin": self.gain.margin},
            "leaderboard": [
                {
                    "rank": ranked.rank,
                    "trial": ranked.trial.number,
                    "val_accuracy": ranked.val_accuracy,
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
    """Return the complete trials, best first. Equally accurate trials are ordered by number of parameters, then by trial number.

    Args:
        trials: typed rows, or Optuna's own trials.
        model: the only model whose trials are ranked; None for all models. A model needs typed rows.

    Returns:
        The ranked trials, without pruned, failed and unfinished trials.
    """
    complete = [
        trial
        for trial in trials
        if trial.state in ("complete", TrialState.COMPLETE)
        and trial.value is not None
        and (model is None or (isinstance(trial, TrialRow) and trial.model == model))
    ]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), _n_parameters(trial), trial.number))


def count_states(trials: Sequence[TrialRow]) -> dict[str, int]:
    """Count the trials in each state.

    Args:
        trials: trials of one study.

    Returns:
        State to number of trials, for each of `STATES`.
    """
    return {state: sum(trial.state == state for trial in trials) for state in STATES}


def make_leaderboard(trials: Sequence[TrialRow], *, validation_images: int) -> Leaderboard:
    """Return the leaderboard of a study.

    Args:
        trials: all trials of the study.
        validation_images: number of images on which each trial was validated.

    Returns:
        The leaderboard.
    """
    complete = [(trial, trial.value or 0.0) for trial in rank(trials)]
    best = complete[0][1] if complete else 0.0
    margin = difference_margin(best, validation_images)
    ranking = tuple(
        RankedTrial(
            rank=position,
            trial=trial,
            val_accuracy=val_accuracy,
            interval=wilson_interval(val_accuracy, validation_images),
            unresolved=val_accuracy == best or best - val_accuracy < margin,
        )
        for position, (trial, val_accuracy) in enumerate(complete, start=1)
    )
    baseline = next((ranked for ranked in ranking if ranked.trial.origin == BASELINE), None)
    accuracies = by_model((trial.model, trial.last_accuracy) for trial in trials)
    return Leaderboard(
        ranking=ranking,
        counts=count_states(trials),
        total=len(trials),
        validation_images=validation_images,
        margin=margin,
        seconds=sum(trial.seconds for trial in trials),
        saved_seconds=sum(map(_saved_seconds, trials)),
        audit=_audit(ranking),
        gain=None if baseline is None else BaselineGain(baseline=baseline, difference=best - baseline.val_accuracy, margin=margin),
        outlook=look_ahead(accuracies, validation_images),
        trailing=trailing_models(accuracies, validation_images),
    )


def _audit(ranking: Sequence[RankedTrial]) -> AuditResult | None:
    ranks = [ranked.rank for ranked in ranking if ranked.trial.audited_at is not None]
    wrong = sum(rank <= N_BEST for rank in ranks)
    return AuditResult(trials=len(ranks), wrong=wrong, interval=wilson_interval(wrong / len(ranks), len(ranks))) if ranks else None


def records(trials: Sequence[TrialRow]) -> list[dict[str, Any]]:
    """Return trials as flat records for a CSV file or a data frame.

    Args:
        trials: trials of one study.

    Returns:
        One record for each trial. All records have the same keys. A missing value is None.
    """
    names = sorted({name for trial in trials for name in trial.params})
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "val_accuracy": trial.value,
            "train_accuracy": last_train_accuracy(trial),
            "model": trial.model,
            "n_parameters": trial.n_parameters,
            "flops": trial.flops,
            "epochs_done": len(trial.epochs),
            "seconds": round(trial.seconds, 2),
            "origin": trial.origin,
            "reason": trial.end.get("reason", ""),
            **{f"params.{name}": trial.params.get(name) for name in names},
        }
        for trial in trials
    ]


def last_train_accuracy(trial: TrialRow) -> float | None:
    """Return the training accuracy of a trial after its last epoch.

    Args:
        trial: any trial.

    Returns:
        The accuracy, 0 to 1; None before the first epoch.
    """
    return trial.epochs[-1].train_accuracy if trial.epochs else None


def describe_progress(trial: TrialRow) -> str:
    """Return how far a trial has been trained.

    Args:
        trial: any trial.

    Returns:
        `epoch 3`, or `4 % of epoch 1`.
    """
    return f"epoch {len(trial.epochs)}" if trial.epochs or not trial.rungs else f"{100 * trial.trained_epochs:.0f} % of epoch 1"


def describe_settings(trial: TrialRow) -> str:
    """Return the words of `setting_words` as one text.

    Args:
        trial: any trial.

    Returns:
        `adam batch_size=64 lr=0.0031`.
    """
    return " ".join(setting_words(trial))


def setting_words(trial: TrialRow) -> list[str]:
    """Return the sampled values without the model. For a trial of a follow-up study, return the repeated configuration and the seed.

    Args:
        trial: any trial.

    Returns:
        Short words such as `adam`, `batch_size=64`, `lr=0.0031`.
    """
    if trial.repeat is not None:
        return [f"{trial.repeat[0]}, seed {trial.repeat[1]}"]
    words: list[str] = []
    for name, value in sorted(trial.params.items(), key=lambda item: ("." in item[0], item[0])):
        short = name.rpartition(".")[2]
        if name in ("optimizer", "schedule"):
            words.insert(0, str(value))
        elif name != "model":
            words.append(f"{short}={value:.3g}" if isinstance(value, float) else f"{short}={str(value).lower()}")
    return words


def _n_parameters(trial: TrialRow | FrozenTrial) -> float:
    known = trial.n_parameters if isinstance(trial, TrialRow) else trial.user_attrs.get(TrialKey.N_PARAMETERS)
    return math.inf if known is None else known


def _saved_seconds(trial: TrialRow) -> float:
    if trial.state != "pruned" or trial.config is None or not trial.trained_epochs:
        return 0.0
    return (trial.config.epochs - trial.trained_epochs) * trial.seconds / trial.trained_epochs
