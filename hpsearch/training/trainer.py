"""Trains a config on a split, and yields an `Epoch` after each epoch. This is the only training loop.

To stop a run, the caller does not ask for the next epoch. The caller also stores and compares the
epochs. A run itself stores only its checkpoint and the predictions after its last epoch.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.paths import write_atomically
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import CheckpointError, ConfigError, TrainingError
from hpsearch.formatting import one_line, show, show_path
from hpsearch.training import checkpoint as checkpoints
from hpsearch.training.data import augment
from hpsearch.training.data.split import Split, batches, count_batches, stratified_order
from hpsearch.training.device import deterministic_algorithms, resolve_device
from hpsearch.training.evaluate import Evaluation, Normalisation, evaluate, forward
from hpsearch.training.factory import build_model, build_optimizer, build_schedule, check_components
from hpsearch.training.randomness import generator, global_states, seeded_generators

KEPT_MISTAKES = 24
"""Number of misclassified images that are stored with the predictions. They show a pattern, but take only a few kilobytes."""
LOSS_CHECK_INTERVAL = 32
"""Steps between two checks that the loss is finite. At each check, the CPU waits for the GPU."""
SAMPLE_WITHOUT_VALIDATION = 10_000
"""Number of training images to evaluate after each epoch if there are no validation images.

If there are validation images, the same number of training images is evaluated.
"""


@overload
def train(
    config: TrainConfig, split: Split, *, checkpoint: Path | None = None, device: str = "auto", owner: str = "", rungs: tuple[()] = ()
) -> Generator[Epoch, None, None]: ...


@overload
def train(
    config: TrainConfig, split: Split, *, checkpoint: Path | None = None, device: str = "auto", owner: str = "", rungs: tuple[float, ...]
) -> Generator[Epoch | Rung, None, None]: ...


def train(
    config: TrainConfig,
    split: Split,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    owner: str = "",
    rungs: tuple[float, ...] = (),
) -> Generator[Epoch | Rung, None, None]:
    """Train a config on a split, one epoch for each item that the caller requests.

    The epochs repeat bit for bit, except for the times, if these are the same: arguments, versions,
    processor and number of threads. If the loss is not finite, the run ends with an epoch that is
    marked `diverged`.

    Args:
        config: the config of the run.
        split: the images.
        checkpoint: a file to write before each epoch is yielded. If the file exists, the run yields
            the epochs in the file again. Training then continues as if it had never stopped. After
            the last epoch, the run also writes `predictions_path(checkpoint)`.
        device: auto, cpu, cuda or cuda:N.
        owner: the trial, as "study id/trial number". A checkpoint of another trial raises an error.
        rungs: shares of the first epoch, above 0 and below 1 and rising, after which the run measures the model, writes its checkpoint and
            yields a `Rung`. They do not change the training.

    Yields:
        The epochs in order, with the rungs before the first epoch. A rung that the checkpoint has passed is not measured again: it is
        yielded again if it was measured then, and left out if not.

    Raises:
        ComponentError: a component is unknown, or its component file has changed.
        ConfigError: the options, the components and the images do not fit together.
        CheckpointError: the checkpoint belongs to another run, or its content does not fit the config.
        TrainingError: there is not enough memory.
        DiskError: the checkpoint cannot be written.

    Example:
        >>> import hpsearch, torch
        >>> @hpsearch.dataset("shades")
        ... def shades(root, *, train):
        ...     labels = torch.arange(60) % 2
        ...     images = 200 * labels[:, None, None].expand(60, 28, 28)
        ...     return images.to(torch.uint8), labels, ("dark", "bright")
        >>> split = hpsearch.load_split("shades", validation_images=20, seed=0)
        >>> config = hpsearch.configure(model="lenet5", epochs=2, batch_size=10)
        >>> [epoch.number for epoch in hpsearch.train(config, split, device="cpu")]
        [1, 2]
    """
    if list(rungs) != sorted(set(rungs)) or not all(0 < share < 1 for share in rungs):
        raise ConfigError(f"rungs must be rising shares above 0 and below 1, but got {show(rungs)}")
    run = _Run(config, split, resolve_device(device))
    identity = checkpoints.RunIdentity(owner=owner, config=config.digest, split=split.hash)
    stored = checkpoints.load(checkpoint, identity) if checkpoint is not None else None
    done = run.restore(stored, checkpoint) if stored is not None and checkpoint is not None else []
    return _epochs(run, done, checkpoint, identity, rungs)


def predictions_path(checkpoint: Path) -> Path:
    """Return the path of the predictions of a finished run for its N validation images.

    The file has numpy's npz format, and these arrays:
        predicted: the predicted class, uint8 [N]; int16 if there are more than 256 classes.
        confidence: the predicted probability of the predicted class, float32 [N].
        label: the true class, with the same type as `predicted`.
        classes: the names of the classes.
        mistake: indices of the K misclassified images with the highest confidence, highest first.
        mistake_image: these K images, uint8 [K, C, H, W].

    Args:
        checkpoint: the file of the run's checkpoint.

    Returns:
        A file in the same folder.
    """
    return checkpoint.with_name("predictions.npz")


def _epochs(
    run: _Run, done: list[Epoch], checkpoint: Path | None, identity: checkpoints.RunIdentity, rungs: tuple[float, ...]
) -> Generator[Epoch | Rung, None, None]:
    yield from [rung for rung in run.partial.rungs if rung.share in rungs]
    yield from list(done)
    for share in rungs if not done else ():
        if any(share <= rung.share for rung in run.partial.rungs):
            continue
        if (rung := run.rung(share)) is None:
            break
        if checkpoint is not None:
            checkpoints.save(checkpoint, identity, {"epochs": [], **run.state()})
        yield rung
    while len(done) < run.config.epochs and not (done and done[-1].diverged):
        epoch, evaluation = run.epoch(len(done) + 1)
        done.append(epoch)
        if checkpoint is not None:
            if epoch.diverged or epoch.number == run.config.epochs:
                _write_predictions(predictions_path(checkpoint), evaluation, run.split)
            checkpoints.save(checkpoint, identity, {"epochs": [asdict(each) for each in done], **run.state()})
        yield epoch


@dataclass(kw_only=True)
class _PartialEpoch:
    """An epoch in which some steps are done.

    Attributes:
        step: number of steps that are done.
        seen: number of images in these steps.
        loss: sum of the losses of these steps. After one loss that is not finite, it is never finite again.
        learning_rate: learning rate of the last step.
        training_seconds: time of these steps.
        seconds: the same, with the time of the measurements at rungs.
        augmentation: state of the generator of the augmentation; None before the first step.
        generators: states of the global generators; None before the first step.
        rungs: the measurements so far.
    """

    step: int = 0
    seen: int = 0
    loss: float = 0.0
    learning_rate: float = 0.0
    training_seconds: float = 0.0
    seconds: float = 0.0
    augmentation: Tensor | None = None
    generators: dict[str, Any] | None = None
    rungs: list[Rung] = field(default_factory=list)


class _Run:
    """A model in training: its state, and the steps of an epoch."""

    def __init__(self, config: TrainConfig, split: Split, device: torch.device) -> None:
        check_components(config)
        self.config = config
        self.device = device
        self.split = split.to(device)
        self.normalise = Normalisation.of(split.mean, split.std, device)
        self.steps_per_epoch = count_batches(len(split.train_labels), config.batch_size)
        with seeded_generators(config.seed, "weights", device=device), deterministic_algorithms(device), self._errors_explained():
            self.model = build_model(config, split.input_shape, len(split.classes)).to(device)
            self._require_logits()
            self.optimizer = build_optimizer(config, self.model)
            self.schedule = build_schedule(config, self.optimizer, steps_per_epoch=self.steps_per_epoch)
        sample = generator(config.seed, "training sample")
        number = min(len(split.train_labels), len(split.validation_labels) or SAMPLE_WITHOUT_VALIDATION)
        indices = torch.randperm(len(split.train_labels), generator=sample)[:number].to(device)
        self.sample_images, self.sample_labels = self.split.train_images[indices], self.split.train_labels[indices]
        self.partial = _PartialEpoch()

    def rung(self, share: float) -> Rung | None:
        """Train a share of the first epoch and measure the model on the same share of the validation images.

        Args:
            share: above 0 and below 1.

        Returns:
            The measurement; None if the loss is not finite.
        """
        start = time.perf_counter()
        with self._generators(1):
            finite = self._train(1, max(1, round(share * self.steps_per_epoch)))
            self.partial.generators = global_states(self.device)
        if not finite:
            self.partial.seconds += time.perf_counter() - start
            return None
        labels = self.split.validation_labels
        # A model that draws random numbers in evaluation, too, must not change the numbers of the training.
        with seeded_generators(self.config.seed, "rung", device=self.device), self._explained():
            order = stratified_order(labels, generator(self.config.seed, "rung"))[: math.ceil(share * len(labels))].to(self.device)
            found = evaluate(self.model, self.split.validation_images[order], labels[order], self.normalise, self.config.precision)
        self.partial.seconds += time.perf_counter() - start
        rung = Rung(
            share=share, images=self.partial.seen, val_accuracy=found.accuracy, n_validated=len(order), seconds=self.partial.seconds
        )
        self.partial.rungs.append(rung)
        return rung

    def epoch(self, number: int) -> tuple[Epoch, Evaluation]:
        """Train for an epoch, or for the rest of an epoch, and evaluate the model.

        Args:
            number: number of the epoch, from 1.

        Returns:
            The epoch, and the evaluation on the validation images.
        """
        start = time.perf_counter()
        with self._generators(number):
            finite = self._train(number, self.steps_per_epoch)
            precision = self.config.precision
            train = evaluate(self.model, self.sample_images, self.sample_labels, self.normalise, precision)
            validation = evaluate(self.model, self.split.validation_images, self.split.validation_labels, self.normalise, precision)
        epoch = Epoch(
            number=number,
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            learning_rate=self.partial.learning_rate,
            seconds=self.partial.seconds + time.perf_counter() - start,
            images_per_second=self.partial.seen / self.partial.training_seconds,
            weights_hash=_hash(self.model),
            diverged=not (
                finite and math.isfinite(train.loss) and (math.isfinite(validation.loss) or not len(self.split.validation_labels))
            ),
        )
        self.partial = _PartialEpoch()
        return epoch, validation

    def state(self) -> dict[str, Any]:
        """Return the state on which the next step depends.

        Between two epochs it has no state of random generators, because the seed and the number of the epoch determine the random numbers.

        Returns:
            The state dicts for a checkpoint.
        """
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        return {**state, "partial_epoch": asdict(self.partial)} if self.partial.step else state

    def restore(self, stored: dict[str, Any], checkpoint: Path) -> list[Epoch]:
        """Restore a state.

        Args:
            stored: the result of `state`, with the epochs that are done.
            checkpoint: the file, for the error message.

        Returns:
            The epochs that are done.

        Raises:
            CheckpointError: the state does not fit the config.
        """
        try:
            done = [Epoch.from_dict(epoch) for epoch in stored["epochs"]]
            if [epoch.number for epoch in done] != list(range(1, len(done) + 1)):
                raise ValueError("the epochs are not numbered from 1")
            self.model.load_state_dict(stored["model"])
            self.optimizer.load_state_dict(stored["optimizer"])
            self.schedule.load_state_dict(stored["schedule"])
            if "partial_epoch" in stored:
                rungs = [Rung(**rung) for rung in stored["partial_epoch"]["rungs"]]
                self.partial = _PartialEpoch(**{**stored["partial_epoch"], "rungs": rungs})
                self._require_partial()
        except Exception as error:  # the parts may be a user's, so any error is possible
            raise CheckpointError(
                f"the checkpoint {show_path(checkpoint)} does not fit the config: {type(error).__name__}: {one_line(str(error))}",
                hint="Delete the checkpoint to start over.",
            ) from error
        return done

    @contextmanager
    def _generators(self, number: int) -> Iterator[None]:
        """Seed the global generators for an epoch, or continue with them where the epoch was left."""
        with (
            seeded_generators(self.config.seed, "epoch", number, device=self.device, states=self.partial.generators),
            self._explained(),
        ):
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with deterministic_algorithms(self.device), self._errors_explained():
            yield

    def _require_partial(self) -> None:
        """Raise some error if the restored state of a partial epoch cannot be one."""
        partial = self.partial
        if type(partial.step) is not int or not 0 < partial.step <= self.steps_per_epoch:
            raise ValueError(f"step {partial.step!r} is no step of the first epoch")
        figures = (partial.seen, partial.loss, partial.learning_rate, partial.training_seconds, partial.seconds)
        figures += tuple(figure for rung in partial.rungs for figure in asdict(rung).values())
        if not all(isinstance(figure, int | float) for figure in figures):
            raise TypeError("a figure of the partial epoch has another type")
        if partial.augmentation is None or partial.generators is None:
            raise ValueError("the states of the generators are missing")
        torch.Generator().set_state(partial.augmentation)
        with seeded_generators(0, device=self.device, states=partial.generators):
            pass

    def _train(self, number: int, last_step: int) -> bool:
        """Train on the batches of an epoch that are left, up to a step. Return whether the loss stayed finite."""
        partial, start = self.partial, time.perf_counter()
        if partial.step and partial.step % LOSS_CHECK_INTERVAL == 0 and not math.isfinite(partial.loss):
            return False  # the epoch was left where it ends without rungs, too
        self.model.train()
        shuffle = generator(self.config.seed, "batches", number)
        augmentation = generator(self.config.seed, "augmentation", number)
        if partial.augmentation is not None:
            augmentation.set_state(partial.augmentation)
        total = torch.full((), partial.loss, device=self.device)
        left = itertools.islice(batches(len(self.split.train_labels), self.config.batch_size, shuffle), partial.step, last_step)
        for step, indices in enumerate(left, start=partial.step + 1):
            chosen = indices.to(self.device)
            images = self._augmented(self.split.train_images[chosen], augmentation)
            logits = forward(self.model, self.normalise(images), self.config.precision)
            loss = functional.cross_entropy(logits, self.split.train_labels[chosen], label_smoothing=self.config.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            partial.learning_rate = float(self.optimizer.param_groups[0]["lr"])
            self.schedule.step()
            total += loss.detach()
            partial.step, partial.seen = step, partial.seen + len(indices)
            if step % LOSS_CHECK_INTERVAL == 0 and not torch.isfinite(total).item():
                break
        partial.loss, partial.augmentation = total.item(), augmentation.get_state()
        partial.training_seconds += time.perf_counter() - start
        return math.isfinite(partial.loss)

    def _augmented(self, images: Tensor, draws: torch.Generator) -> Tensor:
        if self.config.flip:
            images = augment.flip(images, draws)
        if self.config.shift:
            images = augment.shift(images, self.config.shift, draws)
        return images

    def _require_logits(self) -> None:
        """Check on two images that the model returns logits. Lazy layers get their sizes here."""
        images = self.split.train_images[:2]
        self.model.eval()
        with torch.no_grad():
            logits = forward(self.model, self.normalise(images), self.config.precision)
        wanted = (len(images), len(self.split.classes))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(
                f"the model '{self.config.model.name}' must map {len(images)} images to logits {wanted}, but returned {found}"
            )

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        """Replace torch's error messages by messages about the config."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)):
                raise
            raise TrainingError(
                f"out of memory on {self.device} with the model '{self.config.model.name}' and batch_size {self.config.batch_size}",
                hint="Take a smaller batch_size or model, or fewer workers.",
            ) from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"the model '{self.config.model.name}' normalises over the batch, but with batch_size "
                f"{self.config.batch_size} a batch is a single image",
                hint="Take a batch_size of at least 2, or no batch_norm.",
            ) from error


def _hash(model: nn.Module) -> str:
    """Return the SHA-256 of the names and bytes of all weights and buffers, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write_predictions(path: Path, evaluation: Evaluation, split: Split) -> None:
    kind = numpy.uint8 if len(split.classes) <= 256 else numpy.int16
    wrong = torch.nonzero(evaluation.predicted != split.validation_labels.cpu()).flatten()
    worst = wrong[evaluation.confidence[wrong].argsort(descending=True, stable=True)[:KEPT_MISTAKES]]
    content = io.BytesIO()
    numpy.savez(
        content,
        predicted=evaluation.predicted.numpy().astype(kind),
        confidence=evaluation.confidence.numpy(),
        label=split.validation_labels.cpu().numpy().astype(kind),
        classes=numpy.array(split.classes, dtype=str),
        mistake=worst.numpy(),
        mistake_image=split.validation_images[worst.to(split.validation_images.device)].cpu().numpy(),
    )
    write_atomically(path, content.getvalue())
