"""Final training and the test score: the only reader of the test split."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from scipy.stats import t as student_t

from hpsearch.best_config import BestConfig
from hpsearch.config import TrainConfig
from hpsearch.epoch import Epoch
from hpsearch.errors import TrainingError, UsageError
from hpsearch.evaluation import Metrics, Predictions, measure, most_confident_mistakes
from hpsearch.model_card import model_card
from hpsearch.results.final_report import final_report
from hpsearch.results.mistakes import mistakes_gallery
from hpsearch.seeds import derive_seed
from hpsearch.training import checkpoint as checkpoints
from hpsearch.training.data import Split, load_training_images, undivided
from hpsearch.training.device import resolve_device
from hpsearch.training.evaluate import Evaluation
from hpsearch.training.registry import build_model
from hpsearch.training.saved import SavedModel, load_model, save_model
from hpsearch.training.sources import Images
from hpsearch.training.test_split import load_test_images
from hpsearch.training.trainer import train

READS = "test_split_reads"
SHOWN_MISTAKES = 24
"""In the report: a screenful."""


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """One trained model: its seed, and what it is worth on the training and on the test images."""

    seed: int
    train_loss: float
    test_loss: float
    train: Metrics
    test: Metrics


@dataclass(frozen=True, kw_only=True)
class FinalScore:
    """The models of all seeds, and what they say together.

    Attributes:
        test_accuracy: mean over the seeds.
        interval: 95 % interval of it: over the seeds where there are several, else over the images.
        reads: how often the test split has been read for this folder, this time included.
    """

    scores: tuple[SeedScore, ...]
    test_accuracy: float
    interval: tuple[float, float]
    reads: int

    @property
    def gap(self) -> float:
        """Training accuracy less test accuracy, mean over the seeds."""
        return statistics.mean(score.train.accuracy - score.test.accuracy for score in self.scores)

    @property
    def overfitting(self) -> str:
        """One sentence, the gap read against its spread over the seeds."""
        train = statistics.mean(score.train.accuracy for score in self.scores)
        said = f"{100 * train:.2f} % on the training images, {100 * self.test_accuracy:.2f} % on the test images: {100 * self.gap:.2f} points between"
        gaps = [score.train.accuracy - score.test.accuracy for score in self.scores]
        if len(gaps) > 1:
            said += f", ± {100 * statistics.stdev(gaps):.2f} from seed to seed"
        if self.gap > 0.03:
            return f"It overfits: {said}."
        return f"It hardly overfits: {said}."


class FinalTraining:
    """Trains a best config on all training images, once a seed, and then reads the test split.

    Args:
        folder: where everything is written; what is there already is gone on with.
        seeds: how many models.
    """

    def __init__(self, best: BestConfig, folder: Path, *, seeds: int, data: Path | None, device: str) -> None:
        self.best = best
        self.folder = folder
        self.device = str(resolve_device(device))
        self._data = data
        self._seeds = [best.config.seed, *(derive_seed(best.config.seed, "final", number) for number in range(2, seeds + 1))]
        self._refuse_another_config()

    def train(self) -> Iterator[tuple[int, Epoch]]:
        """Train what is not trained yet; yields the model's number, from 1, and each of its epochs.

        Raises:
            TrainingError: the loss diverged.
        """
        images = load_training_images(self.best.data.dataset, folder=self._data)
        split = undivided(images)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.toml").write_text(self.best.to_toml(), encoding="utf-8")
        for number, seed in enumerate(self._seeds, start=1):
            if self._model_file(number).exists():
                continue
            config = replace(self.best.config, seed=seed)
            checkpoint = self._seed_folder(number) / "checkpoint"
            for epoch in train(config, split, checkpoint=checkpoint, device=self.device, owner="final"):
                yield number, epoch
                if epoch.diverged:
                    raise TrainingError(
                        f"the loss of seed {number} diverged in epoch {epoch.number}", hint="Take another trial, or a lower lr."
                    )
            self._save(number, config, split, checkpoint)

    def score(self) -> FinalScore:
        """Read the test split, once, and write down all that it says."""
        train_images = load_training_images(self.best.data.dataset, folder=self._data)
        test_images = load_test_images(self.best.data.dataset, folder=self._data)
        reads = self._count_reading()
        scores, rows = [], []
        for number, seed in enumerate(self._seeds, start=1):
            model = load_model(self._model_file(number))
            parts = {"train": train_images, "test": test_images}
            evaluations = {part: model.evaluate(images.images, images.labels) for part, images in parts.items()}
            predictions = {part: _predictions(evaluations[part], images) for part, images in parts.items()}
            scores.append(
                SeedScore(
                    seed=seed,
                    train_loss=evaluations["train"].loss,
                    test_loss=evaluations["test"].loss,
                    train=measure(predictions["train"]),
                    test=measure(predictions["test"]),
                )
            )
            if number == 1:
                rows = list(predictions.items())
        score = FinalScore(scores=tuple(scores), reads=reads, **_mean_with_interval(scores))
        self._write(score, rows)
        self._write_report(score, dict(rows), test_images)
        return score

    def _refuse_another_config(self) -> None:
        there = self.folder / "config.toml"
        if there.exists() and there.read_text(encoding="utf-8") != self.best.to_toml():
            raise UsageError(f"{self.folder} holds models of another config", hint="Choose another folder with -o.")

    def _seed_folder(self, number: int) -> Path:
        return self.folder / "seeds" / str(number)

    def _model_file(self, number: int) -> Path:
        # The first seed's model is the model; never the one that the test split likes best.
        return self.folder / "model.safetensors" if number == 1 else self._seed_folder(number) / "model.safetensors"

    def _save(self, number: int, config: TrainConfig, split: Split, checkpoint: Path) -> None:
        identity = checkpoints.Identity(owner="final", config=config.digest, split=split.hash)
        stored = checkpoints.load(checkpoint, identity)
        if stored is None:
            raise TrainingError(f"the checkpoint {checkpoint} is damaged", hint="The same command trains this seed again.")
        module = build_model(config, split.input_shape, len(split.classes))
        module.load_state_dict(stored["model"])
        model = SavedModel(
            module=module, config=config, classes=split.classes, input_shape=split.input_shape, mean=split.mean, std=split.std
        )
        save_model(self._model_file(number), model)
        checkpoints.remove(checkpoint)

    def _count_reading(self) -> int:
        file = self.folder / "metrics.json"
        reads = (json.loads(file.read_text(encoding="utf-8")).get(READS, 0) if file.exists() else 0) + 1
        # Noted before the score is known: a reading counts also when something breaks afterwards.
        file.write_text(json.dumps({READS: reads}) + "\n", encoding="utf-8")
        return reads

    def _write(self, score: FinalScore, predictions: list[tuple[str, Predictions]]) -> None:
        (self.folder / "metrics.json").write_text(json.dumps(score_data(score), indent=2) + "\n", encoding="utf-8")
        with (self.folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "index", "truth", "guess", "confidence"])
            for part, each in predictions:
                for index, (truth, guess, confidence) in enumerate(zip(each.label, each.predicted, each.confidence, strict=True)):
                    writer.writerow([part, index, each.classes[truth], each.classes[guess], f"{confidence:.4f}"])
        (self.folder / "README.md").write_text(model_card(self.best, score_data(score), load_model(self.folder)), encoding="utf-8")

    def _write_report(self, score: FinalScore, predictions: dict[str, Predictions], test_images: Images) -> None:
        mistakes = most_confident_mistakes(predictions["test"], SHOWN_MISTAKES)
        page = final_report(
            self.best,
            score_data(score),
            train=score.scores[0].train,
            test=score.scores[0].test,
            predictions=predictions,
            mistakes=mistakes_gallery(predictions["test"], mistakes, test_images.images[mistakes].numpy()),
        )
        (self.folder / "report.html").write_text(page, encoding="utf-8")


def score_data(score: FinalScore) -> dict[str, Any]:
    """A score as plain data, as `metrics.json` holds it."""
    return {
        READS: score.reads,
        "test_accuracy": score.test_accuracy,
        "test_accuracy_interval": list(score.interval),
        "interval_over": "seeds" if len(score.scores) > 1 else "images",
        "gap": score.gap,
        "overfitting": score.overfitting,
        "seeds": [
            {
                "seed": each.seed,
                "train_loss": each.train_loss,
                "test_loss": each.test_loss,
                "train": each.train.to_dict(),
                "test": each.test.to_dict(),
            }
            for each in score.scores
        ],
    }


def _predictions(evaluation: Evaluation, images: Images) -> Predictions:
    return Predictions(
        label=images.labels.numpy(),
        predicted=evaluation.predicted.numpy(),
        confidence=evaluation.confidence.numpy().astype(numpy.float64),
        classes=images.classes,
    )


def _mean_with_interval(scores: list[SeedScore]) -> dict[str, Any]:
    accuracies = [score.test.accuracy for score in scores]
    if len(accuracies) == 1:
        return {"test_accuracy": accuracies[0], "interval": scores[0].test.interval}
    mean = statistics.mean(accuracies)
    quantile = float(student_t.ppf(0.975, df=len(accuracies) - 1))
    half = quantile * statistics.stdev(accuracies) / math.sqrt(len(accuracies))
    return {"test_accuracy": mean, "interval": (max(0.0, mean - half), min(1.0, mean + half))}
