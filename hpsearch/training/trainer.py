"""The only training loop: a config and a split in, one `Epoch` after another out.

The caller owns the loop: to stop a run is not to ask for its next epoch. Storing and comparing
epochs is the caller's business too; a run's own memory is its checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.config.epoch import Epoch
from hpsearch.config.paths import write_atomically
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import ConfigError, TrainingError
from hpsearch.training import checkpoint as checkpoints
from hpsearch.training.data import augment
from hpsearch.training.data.split import Split, batches, count_batches
from hpsearch.training.device import deterministic_algorithms, resolve_device
from hpsearch.training.evaluate import Evaluation, Normalisation, evaluate
from hpsearch.training.factory import build_model, build_optimizer, build_schedule, check_components
from hpsearch.training.randomness import generator, seeded_generators

KEPT_MISTAKES = 24
"""Images that are kept with a run's predictions: enough to see a pattern, and a few kilobytes."""
LOSS_CHECK_INTERVAL = 32
"""Steps between two looks at whether the loss is finite; each look makes a GPU wait."""
SAMPLE_WITHOUT_VALIDATION = 10_000
"""Training images that are measured after each epoch where there are no validation images to match in number."""


def train(
    config: TrainConfig, split: Split, *, checkpoint: Path | None = None, device: str = "auto", owner: str = ""
) -> Generator[Epoch, None, None]:
    """Train a config on a split, one epoch each time the next one is asked for.

    With the same arguments, versions and number of threads the epochs are the same bit for bit,
    times aside. A non-finite loss ends the run with an epoch marked `diverged`.

    Args:
        checkpoint: a file that is written before each epoch is yielded. Where it exists, the
            stored epochs are yielded again and training goes on behind them as if it had never
            stopped. The last epoch writes `predictions_path(checkpoint)` too.
        device: auto, cpu, cuda or cuda:N.
        owner: whose run this is, as "study id / trial number"; a checkpoint of another's is refused.

    Raises:
        ComponentError: a component is unknown, or not the one that the config was made with.
        ConfigError: the components do not take their options, each other or the images.
        CheckpointError: the checkpoint belongs to another run.
        TrainingError: out of memory.
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
    run = _Run(config, split, resolve_device(device))
    identity = checkpoints.RunIdentity(owner=owner, config=config.digest, split=split.hash)
    stored = checkpoints.load(checkpoint, identity) if checkpoint is not None else None
    return _epochs(run, stored, checkpoint, identity)


def predictions_path(checkpoint: Path) -> Path:
    """The file of a finished run's predictions: numpy's npz with one entry a validation image.

    `predicted`: the class, uint8 (int16 from 257 classes on); `confidence`: the probability
    given to it, float32; `label`: the true class, of the same type as `predicted`. Beside them
    `classes`: their names; `mistake` and `mistake_image`: the indices of the most confident
    mistakes, the worst first, and their images, uint8 [K, C, H, W].
    """
    return checkpoint.with_name("predictions.npz")


def _epochs(
    run: _Run, stored: dict[str, Any] | None, checkpoint: Path | None, identity: checkpoints.RunIdentity
) -> Generator[Epoch, None, None]:
    done: list[Epoch] = []
    if stored is not None:
        done = [Epoch.from_dict(epoch) for epoch in stored["epochs"]]
        run.restore(stored)
    yield from list(done)
    while len(done) < run.config.epochs and not (done and done[-1].diverged):
        epoch, evaluation = run.epoch(len(done) + 1)
        done.append(epoch)
        if checkpoint is not None:
            if epoch.diverged or epoch.number == run.config.epochs:
                _write_predictions(predictions_path(checkpoint), evaluation, run.split)
            checkpoints.save(checkpoint, identity, {"epochs": [asdict(each) for each in done], **run.state()})
        yield epoch


class _Run:
    """A model in training: what changes from epoch to epoch, and what an epoch does to it."""

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

    def epoch(self, number: int) -> tuple[Epoch, Evaluation]:
        """Train for an epoch and measure it; the second result is that of the validation images."""
        start = time.perf_counter()
        with (
            seeded_generators(self.config.seed, "epoch", number, device=self.device),
            deterministic_algorithms(self.device),
            self._errors_explained(),
        ):
            seen, learning_rate, finite = self._train(number)
            trained = time.perf_counter()
            train = evaluate(self.model, self.sample_images, self.sample_labels, self.normalise)
            validation = evaluate(self.model, self.split.validation_images, self.split.validation_labels, self.normalise)
        epoch = Epoch(
            number=number,
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - start,
            images_per_second=seen / (trained - start),
            weights_hash=_hash(self.model),
            diverged=not (
                finite and math.isfinite(train.loss) and (math.isfinite(validation.loss) or not len(self.split.validation_labels))
            ),
        )
        return epoch, validation

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on; the random numbers follow from the seed and its number."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def restore(self, stored: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.schedule.load_state_dict(stored["schedule"])

    def _train(self, number: int) -> tuple[int, float, bool]:
        """One pass over the training images: images seen, last learning rate, whether the loss stayed finite."""
        self.model.train()
        shuffle = generator(self.config.seed, "batches", number)
        augmentation = generator(self.config.seed, "augmentation", number)
        seen, learning_rate = 0, 0.0
        # A sum that once was not finite never is again.
        total = torch.zeros((), device=self.device)
        for step, indices in enumerate(batches(len(self.split.train_labels), self.config.batch_size, shuffle), start=1):
            chosen = indices.to(self.device)
            images = self._augmented(self.split.train_images[chosen], augmentation)
            loss = functional.cross_entropy(
                self.model(self.normalise(images)), self.split.train_labels[chosen], label_smoothing=self.config.label_smoothing
            )
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            learning_rate = float(self.optimizer.param_groups[0]["lr"])
            self.schedule.step()
            total += loss.detach()
            seen += len(indices)
            if step % LOSS_CHECK_INTERVAL == 0 and not torch.isfinite(total).item():
                break
        return seen, learning_rate, bool(torch.isfinite(total).item())

    def _augmented(self, images: Tensor, draws: torch.Generator) -> Tensor:
        if self.config.flip:
            images = augment.flip(images, draws)
        if self.config.shift:
            images = augment.shift(images, self.config.shift, draws)
        return images

    def _require_logits(self) -> None:
        """Have the model look at two images: what it returns must be logits, and lazy layers learn their sizes."""
        images = self.split.train_images[:2]
        self.model.eval()
        with torch.no_grad():
            logits = self.model(self.normalise(images))
        wanted = (len(images), len(self.split.classes))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(
                f"the model '{self.config.model.name}' must map {len(images)} images to logits {wanted}, but returned {found}"
            )

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        """Say in the words of a config what torch reports of its tensors."""
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
                f"the model '{self.config.model.name}' normalises over the batch, which batch_size {self.config.batch_size} "
                f"makes of a single image",
                hint="Take a batch_size of at least 2, or no batch_norm.",
            ) from error


def _hash(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights and buffers, hexadecimal."""
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
