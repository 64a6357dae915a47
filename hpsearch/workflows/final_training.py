"""Train a final model on all training images and evaluate it on the test images. No other module reads the test split."""

from __future__ import annotations

import csv
import io
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy

from hpsearch import __version__
from hpsearch.analysis.final_score import FinalScore, HeldOutLog, HeldOutReading, SeedScore, SubsetScore
from hpsearch.analysis.metrics import Predictions, mean_over_images, measure, most_confident_mistakes
from hpsearch.config.best_config import BestConfig
from hpsearch.config.epoch import Epoch
from hpsearch.config.paths import FinalPaths, write_atomically
from hpsearch.config.seeds import derive_seed
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import TrainingError
from hpsearch.report.model_card import model_card
from hpsearch.report.model_report import final_report
from hpsearch.report.study_results import misclassified_gallery
from hpsearch.training import checkpoint as checkpoints
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.held_out import load_test_images
from hpsearch.training.data.image_grid import captioned_grid, to_pillow
from hpsearch.training.data.split import Split, count_training_images, load_training_images, undivided
from hpsearch.training.device import resolve_device
from hpsearch.training.evaluate import Evaluation
from hpsearch.training.factory import build_model
from hpsearch.training.plain_torch import torch_source
from hpsearch.training.saved_model import SavedModel, load_model, save_model
from hpsearch.training.trainer import train
from hpsearch.workflows.final_folder import FinalFolder

MISTAKES_SHOWN = 24
"""Number of misclassified images in each picture, which has three rows of eight."""
PARTS = ("train", "test")


class FinalTraining:
    """Trains a best config on all training images, once for each seed, and evaluates the models on the test images.

    Args:
        best: the config.
        folder: folder for all files. Interrupted training continues there.
        seeds: number of models.
        data: folder of the data set; None for the default places.
        device: device name.
        force: whether to start again if the folder holds another final training or other files.

    Raises:
        UsageError: the folder holds something else. Nothing was changed.
    """

    def __init__(self, best: BestConfig, folder: Path, *, seeds: int, data: Path | None, device: str, force: bool = False) -> None:
        self.best = best
        self.paths = FinalPaths(folder)
        self.device = str(resolve_device(device))
        self._data = data
        self._folder = FinalFolder(self.paths, best, force=force)
        self._seeds = [best.config.seed, *(derive_seed(best.config.seed, "final", number) for number in range(2, seeds + 1))]

    @property
    def finished(self) -> Mapping[str, Any] | None:
        """The content of `metrics.json` if all models were trained and evaluated before, else None."""
        record = self._folder.finished
        if record is None or len(record["seeds"]) < len(self._seeds) or not self.paths.predictions.is_file():
            return None
        return record if all(self.paths.model(number).is_file() for number in range(1, len(record["seeds"]) + 1)) else None

    @property
    def is_resumed(self) -> bool:
        """Whether the training continues an earlier training in this folder."""
        return self._folder.is_resumed

    def train(self) -> Iterator[tuple[int, Epoch]]:
        """Train the models that do not exist yet.

        Yields:
            The number of the model, from 1, and each of its epochs.

        Raises:
            DataError: the split of the config does not fit the data set.
            TrainingError: the loss diverged.
            UsageError: the models in the folder were trained on other images.
        """
        data = self.best.data
        images = load_training_images(data.dataset, folder=self._data)
        # Final training holds out no images. This call raises an error for an impossible split, which no search can have used.
        count_training_images(images, validation_images=data.validation_images, train_images=data.train_images)
        split = undivided(images)
        self._folder.begin(split.hash)
        for number, seed in enumerate(self._seeds, start=1):
            if self.paths.model(number).exists():
                continue
            config = replace(self.best.config, seed=seed)
            checkpoint = self.paths.checkpoint(number)
            for epoch in train(config, split, checkpoint=checkpoint, device=self.device, owner="final"):
                yield number, epoch
                epoch.require_finite(f"seed {number}")
            self._save(number, config, split, checkpoint)

    def score(self, log: HeldOutLog | None = None) -> Mapping[str, Any]:
        """Read the test split once, evaluate all models and write the results.

        Args:
            log: log of the study that the config comes from; None if the study cannot be reached.

        Returns:
            The content of `metrics.json`.
        """
        parts = {"train": load_training_images(self.best.data.dataset, folder=self._data)}
        reading = HeldOutReading(
            id=uuid.uuid4().hex[:12],
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=self.best.config.digest,
            seeds=len(self._seeds),
            accuracy=None,
            folder=self.paths.folder.resolve().name,
        )
        # The reading is recorded first, so that it counts even if the evaluation fails.
        self._folder.add_reading(reading)
        if log is not None:
            log.add_reading(reading)
        parts["test"] = load_test_images(self.best.data.dataset, folder=self._data)
        scores = []
        written: dict[str, Predictions] = {}
        for number, seed in enumerate(self._seeds, start=1):
            model = load_model(self.paths.model(number))
            evaluations = {part: model.evaluate(images.images, images.labels) for part, images in parts.items()}
            predictions = {part: _predictions(evaluations[part], images) for part, images in parts.items()}
            scored = {part: _part_score(evaluations[part], predictions[part]) for part in PARTS}
            scores.append(SeedScore(seed=seed, train=scored["train"], test=scored["test"]))
            written = written or predictions
        score = FinalScore(
            scores=tuple(scores),
            mistakes={part: _mistakes(written[part]) for part in PARTS},
            readings=(reading,),
            study=None,
            study_reads=None,
            facts=self._facts(),
        )
        reading = replace(reading, accuracy=score.accuracy("test").value)
        score = replace(score, readings=self._folder.add_reading(reading))
        if log is not None:
            score = replace(score, study=log.study, study_reads=log.add_reading(reading))
        return self._write(score, written, parts)

    def write_onnx(self) -> bool:
        """Write the trained model as `model.onnx`, unless the file exists.

        Returns:
            Whether the file was written.

        Raises:
            UsageError: the `onnx` extra is not installed.
            TrainingError: the model cannot be exported, or onnxruntime and torch give different results.
        """
        from hpsearch.training.onnx_export import CHECKED_BATCHES, write_onnx

        if self.paths.onnx.is_file():
            return False
        images = load_training_images(self.best.data.dataset, folder=self._data).images
        write_onnx(self.paths.onnx, load_model(self.paths.model()), images[: max(CHECKED_BATCHES)])
        if (record := self.finished) is not None:
            self._write_card(record)
        return True

    def _save(self, number: int, config: TrainConfig, split: Split, checkpoint: Path) -> None:
        identity = checkpoints.RunIdentity(owner="final", config=config.digest, split=split.hash)
        stored = checkpoints.load(checkpoint, identity)
        if stored is None:
            raise TrainingError(f"the checkpoint {checkpoint} is damaged", hint="The same command trains this seed again.")
        module = build_model(config, split.input_shape, len(split.classes))
        module.load_state_dict(stored["model"])
        model = SavedModel(
            module=module, config=config, classes=split.classes, input_shape=split.input_shape, mean=split.mean, std=split.std
        )
        save_model(self.paths.model(number), model)
        checkpoints.remove(checkpoint)

    def _facts(self) -> dict[str, Any]:
        packages = ("torch", "torchvision", "numpy", "scikit-learn")
        versions = {"hpsearch": __version__, "python": platform.python_version(), **{package: version(package) for package in packages}}
        return {"device": self.device, "versions": versions}

    def _write(self, score: FinalScore, predictions: Mapping[str, Predictions], parts: Mapping[str, Images]) -> Mapping[str, Any]:
        """Write all files. `metrics.json` comes last, because it says that the other files exist."""
        write_atomically(self.paths.config, self.best.to_toml())
        write_atomically(self.paths.predictions, _csv(predictions))
        can_be_shown = parts["test"].images.shape[1] in (1, 3)
        if can_be_shown:
            for part, images in parts.items():
                write_atomically(self.paths.mistakes(part), _mistakes_sheet(images, score.mistakes[part]))
        data = {**score.to_dict(), "pictures": [self.paths.mistakes(part).name for part in PARTS] if can_be_shown else []}
        indices = [each["index"] for each in score.mistakes["test"]] if can_be_shown else []
        first = score.scores[0]
        page = final_report(
            self.best,
            data,
            train=first.train.metrics,
            test=first.test.metrics,
            predictions=predictions,
            mistakes=misclassified_gallery(predictions["test"], indices, parts["test"].images[indices].numpy()),
        )
        write_atomically(self.paths.report, page)
        self._write_card(data)
        return self._folder.finish(data)

    def _write_card(self, metrics: Mapping[str, Any]) -> None:
        model = load_model(self.paths.model())
        card = model_card(self.best, metrics, model, source=torch_source(model.module), has_onnx=self.paths.onnx.is_file())
        write_atomically(self.paths.card, card)


def _part_score(evaluation: Evaluation, predictions: Predictions) -> SubsetScore:
    return SubsetScore(loss=mean_over_images(evaluation.losses.double().numpy()), metrics=measure(predictions))


def _predictions(evaluation: Evaluation, images: Images) -> Predictions:
    return Predictions(
        label=images.labels.numpy(),
        predicted=evaluation.predicted.numpy(),
        confidence=evaluation.confidence.numpy().astype(numpy.float64),
        classes=images.classes,
    )


def _mistakes(predictions: Predictions) -> list[dict[str, Any]]:
    classes = predictions.classes
    return [
        {
            "index": index,
            "truth": classes[predictions.label[index]],
            "guess": classes[predictions.predicted[index]],
            "confidence": float(predictions.confidence[index]),
        }
        for index in most_confident_mistakes(predictions, MISTAKES_SHOWN)
    ]


def _mistakes_sheet(images: Images, mistakes: Any) -> bytes:
    indices = [each["index"] for each in mistakes]
    captions = [f"{each['truth']}\nas {each['guess']}\n{100 * each['confidence']:.1f} %" for each in mistakes]
    return captioned_grid([to_pillow(image) for image in images.images[indices].numpy()], captions)


def _csv(predictions: Mapping[str, Predictions]) -> str:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["split", "index", "truth", "guess", "confidence"])
    for part in PARTS:
        each = predictions[part]
        for index, (truth, guess, confidence) in enumerate(zip(each.label, each.predicted, each.confidence, strict=True)):
            # Nine digits identify each float32.
            writer.writerow([part, index, each.classes[truth], each.classes[guess], f"{confidence:.9g}"])
    return content.getvalue()
