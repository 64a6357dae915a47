"""The scores of a final model over its seeds, and the log of each reading of the test split."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from hpsearch.analysis.metrics import Estimate, Metrics, mean_over_seeds, overfitting
from hpsearch.formatting import times

FORMAT = 1
"""Format number of `metrics.json`. Hpsearch ignores a file with another number."""
READS = "test_split_reads"


@dataclass(frozen=True, kw_only=True)
class HeldOutReading:
    """One reading of the test split.

    Attributes:
        id: unique identifier.
        at: time in UTC, ISO 8601.
        config: digest of the config whose models were evaluated.
        seeds: number of models.
        accuracy: mean test accuracy over the seeds; None if the reading was interrupted.
        folder: name of the final model's folder.
    """

    id: str
    at: str
    config: str
    seeds: int
    accuracy: float | None
    folder: str


class HeldOutLog(Protocol):
    """The log of test split readings in the study of a config."""

    @property
    def study(self) -> str:
        """The study's name."""

    def add_reading(self, reading: HeldOutReading) -> int:
        """Add a reading, or replace the reading with the same id.

        Args:
            reading: the reading.

        Returns:
            The number of readings that the study has.
        """


@dataclass(frozen=True, kw_only=True)
class SubsetScore:
    """Loss and metrics of one model on the training or on the test images. The images determine the interval of the loss."""

    loss: Estimate
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """The seed of one trained model and its scores."""

    seed: int
    train: SubsetScore
    test: SubsetScore


@dataclass(frozen=True, kw_only=True)
class FinalScore:
    """The scores of all seeds. The saved model is the model of the first seed.

    Attributes:
        mistakes: misclassified images of the first seed with the highest confidence. The keys are `train` and `test`.
        readings: all readings of the test split for this folder, the latest last.
        study: study of the config; None if the study cannot be reached.
        study_reads: number of test split readings for the study; None if the study cannot be reached.
        facts: versions and device.
    """

    scores: tuple[SeedScore, ...]
    mistakes: Mapping[str, Sequence[Mapping[str, Any]]]
    readings: tuple[HeldOutReading, ...]
    study: str | None
    study_reads: int | None
    facts: Mapping[str, Any]

    def loss(self, part: str) -> Estimate:
        """Return the mean cross-entropy over the seeds.

        Args:
            part: `train` or `test`.

        Returns:
            The mean, in nats.
        """
        losses = [getattr(score, part).loss for score in self.scores]
        return mean_over_seeds([each.value for each in losses]) if len(losses) > 1 else losses[0]

    def accuracy(self, part: str) -> Estimate:
        """Return the mean accuracy over the seeds.

        Args:
            part: `train` or `test`.

        Returns:
            The mean, 0 to 1.
        """
        found = [getattr(score, part).metrics for score in self.scores]
        if len(found) == 1:
            return Estimate(value=found[0].accuracy, interval=found[0].interval)
        mean = mean_over_seeds([each.accuracy for each in found])
        low, high = mean.interval
        return Estimate(value=mean.value, interval=(max(0.0, low), min(1.0, high)))

    def to_dict(self) -> dict[str, Any]:
        """Return the score for `metrics.json`.

        Returns:
            All entries, except those that `FinalFolder` adds.
        """
        parts: dict[str, Any] = {}
        for part in ("test", "train"):
            for name, measured in (("accuracy", self.accuracy(part)), ("loss", self.loss(part))):
                parts[f"{part}_{name}"] = measured.value
                parts[f"{part}_{name}_interval"] = list(measured.interval)
        train, test = self.scores[0].train.metrics, self.scores[0].test.metrics
        on_train = [score.train.metrics.accuracy for score in self.scores]
        on_test = [score.test.metrics.accuracy for score in self.scores]
        return {
            READS: len(self.readings),
            "study": self.study,
            "study_test_split_reads": self.study_reads,
            **parts,
            "interval_over": "seeds" if len(self.scores) > 1 else "images",
            "gap": statistics.mean(map(operator.sub, on_train, on_test)),
            "overfitting": overfitting(on_train, on_test, n_images=(train.n_images, test.n_images), name="test"),
            "weakest": weakest_sentence(test),
            "train_less_test": train_less_test(train, test),
            "mistakes": {part: [dict(each) for each in found] for part, found in self.mistakes.items()},
            "seeds": [_seed_data(score) for score in self.scores],
            **self.facts,
        }


def weakest_sentence(metrics: Metrics) -> str:
    """Describe the classes with the lowest recall in one sentence.

    Args:
        metrics: metrics of one model.

    Returns:
        The sentence.
    """
    return f"Weakest: {'; '.join(metrics.weakest)}." if metrics.weakest else "No class is ever taken for another."


def train_less_test(train: Metrics, test: Metrics) -> list[dict[str, Any]]:
    """Return the metrics of each class on the training images minus the metrics on the test images.

    Args:
        train: metrics on the training images.
        test: metrics on the test images, with the same classes.

    Returns:
        One entry for each class.
    """
    return [
        {"name": of_train.name, **{key: getattr(of_train, key) - getattr(of_test, key) for key in ("precision", "recall", "f1")}}
        for of_train, of_test in zip(train.classes, test.classes, strict=True)
    ]


def reads_sentence(metrics: Mapping[str, Any]) -> str:
    """Say how often the test split was read. Every test score is shown with these words.

    Args:
        metrics: content of `metrics.json`.

    Returns:
        The words, without a full stop.
    """
    said = f"test split read {times(metrics[READS])}"
    in_study = metrics.get("study_test_split_reads")
    return said if in_study is None else f"{said}, {times(in_study)} for the study '{metrics['study']}'"


def repeat_command(metrics: Mapping[str, Any]) -> str:
    """Return the command that trains the same models again from the final model's folder.

    Args:
        metrics: content of `metrics.json`.

    Returns:
        The command.
    """
    count = len(metrics["seeds"])
    return "hpsearch train config.toml --final" + (f" --seeds {count}" if count > 1 else "")


def _seed_data(score: SeedScore) -> dict[str, Any]:
    data: dict[str, Any] = {"seed": score.seed}
    for part in ("train", "test"):
        each: SubsetScore = getattr(score, part)
        data[f"{part}_loss"] = each.loss.value
        data[f"{part}_loss_interval"] = list(each.loss.interval)
        data[part] = asdict(each.metrics)
    return data
