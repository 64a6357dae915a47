"""What a final model is worth: the figures of its seeds, what they say together, and each reading of the test split."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from hpsearch.analysis.metrics import Estimate, Metrics, mean_over_seeds, overfitting
from hpsearch.formatting import times

FORMAT = 1
"""Of `metrics.json`; a reader of another one refuses it."""
READS = "test_split_reads"


@dataclass(frozen=True, kw_only=True)
class HeldOutReading:
    """One reading of the test split.

    Attributes:
        id: tells it from every other.
        at: when, in UTC, as ISO 8601 has it.
        config: the digest of the config whose models were scored.
        accuracy: mean over the seeds; None where the reading was cut off before it was known.
        folder: the name of the final model's folder.
    """

    id: str
    at: str
    config: str
    seeds: int
    accuracy: float | None
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class HeldOutLog(Protocol):
    """Where the study that a config comes from notes the readings of the test split."""

    @property
    def study(self) -> str:
        """The study's name."""

    def note(self, reading: HeldOutReading) -> int:
        """Put a reading on record, or what is known of it since; returns how many the study has."""


@dataclass(frozen=True, kw_only=True)
class SubsetScore:
    """A model on the training or on the test images; the interval of the loss is over the images."""

    loss: Estimate
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """One trained model: its seed, and what it is worth."""

    seed: int
    train: SubsetScore
    test: SubsetScore


@dataclass(frozen=True, kw_only=True)
class FinalScore:
    """The models of all seeds, and what they say together. The first seed's is the model that is written.

    Attributes:
        mistakes: of the first seed, `train` and `test`: the most confident ones as `index`, `truth`, `guess`, `confidence`.
        readings: of the test split for this folder, this one last.
        study, study_reads: the study that the config comes from, and how often the test split was read for it; None where it was out of reach.
        facts: versions and device, for a person to read.
    """

    scores: tuple[SeedScore, ...]
    mistakes: Mapping[str, Sequence[Mapping[str, Any]]]
    readings: tuple[HeldOutReading, ...]
    study: str | None
    study_reads: int | None
    facts: Mapping[str, Any]

    @property
    def reads(self) -> int:
        """How often the test split has been read for this folder, this time included."""
        return len(self.readings)

    @property
    def interval_over(self) -> str:
        """What the intervals of the means are over: `seeds` where there are several, else `images`."""
        return "seeds" if len(self.scores) > 1 else "images"

    def loss(self, part: str) -> Estimate:
        """Mean cross-entropy of `train` or `test`, over the seeds."""
        losses = [getattr(score, part).loss for score in self.scores]
        return mean_over_seeds([each.value for each in losses]) if len(losses) > 1 else losses[0]

    def accuracy(self, part: str) -> Estimate:
        """Share of `train` or `test` images classified correctly, over the seeds."""
        found = [getattr(score, part).metrics for score in self.scores]
        if len(found) == 1:
            return Estimate(value=found[0].accuracy, interval=found[0].interval)
        mean = mean_over_seeds([each.accuracy for each in found])
        low, high = mean.interval
        return Estimate(value=mean.value, interval=(max(0.0, low), min(1.0, high)))

    @property
    def gap(self) -> float:
        """Training accuracy less test accuracy, mean over the seeds."""
        return statistics.mean(score.train.metrics.accuracy - score.test.metrics.accuracy for score in self.scores)

    @property
    def overfitting(self) -> str:
        """One sentence, the gap read against its spread."""
        train, test = ([getattr(score, part).metrics for score in self.scores] for part in ("train", "test"))
        return overfitting(
            [each.accuracy for each in train], [each.accuracy for each in test], n_images=(train[0].n_images, test[0].n_images), name="test"
        )

    @property
    def weakest(self) -> str:
        """One sentence on the classes of lowest recall among the test images, and what they are taken for."""
        return weakest_sentence(self.scores[0].test.metrics)

    def to_dict(self) -> dict[str, Any]:
        """As `metrics.json` holds it, but for what the folder itself adds."""
        parts: dict[str, Any] = {}
        for part in ("test", "train"):
            for name, measured in (("accuracy", self.accuracy(part)), ("loss", self.loss(part))):
                parts[f"{part}_{name}"] = measured.value
                parts[f"{part}_{name}_interval"] = list(measured.interval)
        first = self.scores[0]
        return {
            READS: self.reads,
            "study": self.study,
            "study_test_split_reads": self.study_reads,
            **parts,
            "interval_over": self.interval_over,
            "gap": self.gap,
            "overfitting": self.overfitting,
            "weakest": self.weakest,
            "train_less_test": train_less_test(first.train.metrics, first.test.metrics),
            "mistakes": {part: [dict(each) for each in found] for part, found in self.mistakes.items()},
            "seeds": [_seed_data(score) for score in self.scores],
            **self.facts,
        }


def weakest_sentence(metrics: Metrics) -> str:
    """One sentence on the classes of lowest recall and what they are taken for."""
    return f"Weakest: {'; '.join(metrics.weakest)}." if metrics.weakest else "No class is ever taken for another."


def train_less_test(train: Metrics, test: Metrics) -> list[dict[str, Any]]:
    """Of each class, how much better the training images do than the test images."""
    return [
        {
            "name": mine.name,
            "precision": mine.precision - theirs.precision,
            "recall": mine.recall - theirs.recall,
            "f1": mine.f1 - theirs.f1,
        }
        for mine, theirs in zip(train.classes, test.classes, strict=True)
    ]


def reads_sentence(metrics: Mapping[str, Any]) -> str:
    """How often the test split was read, as it stands wherever a test score does."""
    said = f"test split read {times(metrics[READS])}"
    in_study = metrics.get("study_test_split_reads")
    return said if in_study is None else f"{said}, {times(in_study)} for the study '{metrics['study']}'"


def repeat_command(metrics: Mapping[str, Any]) -> str:
    """What trains the same models again, in the folder of what `metrics.json` holds."""
    count = len(metrics["seeds"])
    return "hpsearch train config.toml --final" + (f" --seeds {count}" if count > 1 else "")


def _seed_data(score: SeedScore) -> dict[str, Any]:
    data: dict[str, Any] = {"seed": score.seed}
    for part in ("train", "test"):
        each: SubsetScore = getattr(score, part)
        data[f"{part}_loss"] = each.loss.value
        data[f"{part}_loss_interval"] = list(each.loss.interval)
        data[part] = each.metrics.to_dict()
    return data
