"""The commands train and predict: a best config to a model, and a model to the class of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.console import note, print_json, print_table, say
from hpsearch.cli.options import DataOption, DeviceOption, JsonOption

if TYPE_CHECKING:
    from hpsearch.best_config import BestConfig
    from hpsearch.epoch import Epoch


def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A best config, as `hpsearch export` writes it.", show_default=False)],
    final: Annotated[bool, typer.Option("--final", help="Train on all training images, then read the test split, once.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Models, each of another seed; with --final.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where --final writes. [default: FILE's name and -final]")
    ] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a best config and score it on its validation split; --final is the last step.

    With --final: model.safetensors, config.toml, metrics.json, predictions.csv and a model card. The same command continues.
    """
    from hpsearch.best_config import read_best_config
    from hpsearch.errors import UsageError

    best = read_best_config(file)
    if final:
        _train_final(best, output or file.with_name(f"{file.stem}-final"), seeds=seeds, data=data, device=device, as_json=json)
    elif seeds != 1 or output is not None:
        raise UsageError("--seeds and --output go with --final", hint="Add --final, or leave them out.")
    else:
        _train_on_validation(best, data=data, device=device, as_json=json)


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The folder of a final model, or its model.safetensors.", show_default=False)
    ],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Pictures of any size, colour or grey.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Say what a final model takes pictures for, how sure it is, and what was done to each picture before."""
    import torch

    from hpsearch.training.foreign import read_picture
    from hpsearch.training.saved import load_model

    saved = load_model(model)
    read = [read_picture(path, saved.input_shape) for path in pictures]
    confidences, guesses = saved.probabilities(torch.stack([each.image for each in read])).max(dim=1)
    found = [
        {"picture": str(path), "class": saved.classes[guess], "confidence": confidence, "done": list(each.done)}
        for path, each, guess, confidence in zip(pictures, read, guesses.tolist(), confidences.tolist(), strict=True)
    ]
    if json:
        print_json(found)
        return
    for row in found:
        done = f" ({', '.join(row['done'])})" if row["done"] else ""
        say(f"{row['picture']}: {row['class']}, {100 * row['confidence']:.1f} %{done}")


def _train_on_validation(best: BestConfig, *, data: Path | None, device: str, as_json: bool) -> None:
    import torch

    from hpsearch.training.data import load_split
    from hpsearch.training.trainer import train

    torch.set_num_threads(1)  # as a worker has: the epochs are then the same bit for bit
    split = load_split(
        best.data.dataset,
        validation_images=best.data.validation_images,
        train_images=best.data.train_images,
        seed=best.split_seed,
        folder=data,
    )
    epochs = []
    for epoch in train(best.config, split, device=device):
        epochs.append(epoch)
        _say_epoch(epoch, best.config.epochs)
    last = epochs[-1]
    if as_json:
        print_json({"epochs": [epoch.to_dict() for epoch in epochs]})
        return
    say(f"Validation accuracy {last.validation_accuracy:.4f}, training {last.train_accuracy:.4f}.")
    stored = best.provenance.get("val_accuracy")
    if stored is not None:
        same = (
            "the same"
            if stored == last.validation_accuracy
            else f"{100 * (last.validation_accuracy - stored):+.2f} points off: other versions, device or images"
        )
        say(f"The trial had {stored:.4f}: {same}.")


def _train_final(best: BestConfig, folder: Path, *, seeds: int, data: Path | None, device: str, as_json: bool) -> None:
    import torch

    from hpsearch.final import FinalTraining, score_data

    torch.set_num_threads(1)
    training = FinalTraining(best, folder, seeds=seeds, data=data, device=device)
    for number, epoch in training.train():
        _say_epoch(epoch, best.config.epochs, f"seed {number} of {seeds}, ")
    score = training.score()
    if as_json:
        print_json(score_data(score))
        return
    low, high = score.interval
    times = "once" if score.reads == 1 else f"{score.reads} times"
    over = "the seeds" if len(score.scores) > 1 else "the images"
    say(
        f"Test accuracy {100 * score.test_accuracy:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} % over {over}; test split read {times}."
    )
    say(score.overfitting)
    first = score.scores[0]
    say(
        f"Loss {first.train_loss:.4f} on the training images, {first.test_loss:.4f} on the test images; calibration error {first.test.calibration_error:.4f}."
    )
    for sentence in first.test.weakest:
        say(f"Weak: {sentence}.")
    say()
    rows = [
        [
            each.name,
            f"{each.precision:.3f}",
            f"{each.recall:.3f}",
            f"{each.f1:.3f}",
            f"{train.recall - each.recall:+.3f}",
            str(each.support),
        ]
        for train, each in zip(first.train.classes, first.test.classes, strict=True)
    ]
    headings = ("precision", "recall", "F1", "recall, train less test", "test images")
    print_table({"class": "left", **dict.fromkeys(headings, "right")}, rows)
    say(f"Wrote model.safetensors, config.toml, metrics.json, predictions.csv, README.md and report.html to {folder}.")


def _say_epoch(epoch: Epoch, epochs: int, prefix: str = "") -> None:
    validation = "" if epoch.validation_accuracy != epoch.validation_accuracy else f", validation {epoch.validation_accuracy:.4f}"
    note(f"{prefix}epoch {epoch.number}/{epochs}: training {epoch.train_accuracy:.4f}{validation}, {epoch.images_per_second:,.0f} images/s")
