"""The commands train and predict: a best config to a model, and a model to the class of a picture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.console import note, print_json, say
from hpsearch.cli.options import DataOption, DeviceOption, JsonOption, RunsOption, StorageOption
from hpsearch.config.paths import DEFAULT_RUNS

if TYPE_CHECKING:
    from hpsearch.config.best_config import BestConfig


def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A best config, as `hpsearch export` writes it.", show_default=False)],
    final: Annotated[bool, typer.Option("--final", help="Train on all training images, then read the test split, once.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Models, each of another seed; with --final.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where --final writes. [default: FILE's name and -final]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew in a folder that holds something else; only what hpsearch wrote there is removed.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx too, checked against onnxruntime; with --final.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Take a component file that was changed since the config was made.")] = False,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a best config and score it on its validation split; --final is the last step.

    With --final: model.safetensors, config.toml, metrics.json, predictions.csv, pictures of the mistakes, a report and a model card. The same command
    continues. Each reading of the test split is counted, in the folder and in the study that the config comes from.
    """
    from hpsearch.config.best_config import read_best_config
    from hpsearch.errors import UsageError
    from hpsearch.search.worker_pool import train_like_a_worker

    if not final and (given := _only_with_final(seeds=seeds, output=output, force=force, onnx=onnx)):
        raise UsageError(f"{' and '.join(given)} {'goes' if len(given) == 1 else 'go'} with --final", hint="Add --final, or leave it out.")
    train_like_a_worker()
    best = read_best_config(file, trust=trust)
    for name in best.changed_files:
        note(f"warning: {name} was changed since the config was made; --trust goes on with it", style="yellow")
    if not final:
        _train_on_validation(best, data=data, device=device, as_json=json)
        return
    if onnx:
        from hpsearch.training.onnx_export import require_onnx

        require_onnx()  # not after an hour of training
    from hpsearch.cli.show_model import print_final
    from hpsearch.cli.train_final import train_final
    from hpsearch.storage.workspace import Workspace

    folder = output or file.with_name(f"{file.stem}-final")
    workspace = Workspace(storage=storage, runs=runs, data=data, device=device)
    metrics = train_final(best, folder, workspace, seeds=seeds, force=force, with_onnx=onnx)
    if json:
        print_json(metrics)
    else:
        print_final(metrics, folder)


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The folder of a final model, or its model.safetensors.", show_default=False)
    ],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Pictures of any size, colour or grey.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Say what a final model takes pictures for, how sure it is, and what was done to each picture before."""
    import torch

    from hpsearch.training.input_image import read_picture
    from hpsearch.training.saved_model import load_model

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


def _only_with_final(*, seeds: int, output: Path | None, force: bool, onnx: bool) -> list[str]:
    given = {"--seeds": seeds != 1, "--output": output is not None, "--force": force, "--onnx": onnx}
    return [name for name, is_given in given.items() if is_given]


def _train_on_validation(best: BestConfig, *, data: Path | None, device: str, as_json: bool) -> None:
    from hpsearch.analysis.final_score import weakest_sentence
    from hpsearch.analysis.metrics import measure, overfitting, read_predictions
    from hpsearch.cli.show_model import print_validation
    from hpsearch.cli.train_view import TrainingView
    from hpsearch.training.data.split import load_split
    from hpsearch.training.trainer import predictions_path, train

    split = load_split(
        best.data.dataset,
        validation_images=best.data.validation_images,
        train_images=best.data.train_images,
        seed=best.split_seed,
        folder=data,
    )
    view = TrainingView(epochs=best.config.epochs)
    epochs = []
    with tempfile.TemporaryDirectory(prefix="hpsearch-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        with view.on_screen():
            for epoch in train(best.config, split, checkpoint=checkpoint, device=device):
                epochs.append(epoch)
                view.show(1, epoch)
        metrics = measure(read_predictions(predictions_path(checkpoint)))
    last = epochs[-1]
    # As many training images are measured after each epoch as there are validation images.
    n_images = min(len(split.train_labels), metrics.n_images), metrics.n_images
    found: dict[str, Any] = {
        "train_accuracy": last.train_accuracy,
        "train_loss": last.train_loss,
        "val_loss": last.val_loss,
        "validation": metrics.to_dict(),
        "overfitting": overfitting([last.train_accuracy], [last.val_accuracy], n_images=n_images, name="validation"),
        "weakest": weakest_sentence(metrics),
        "diverged": last.diverged,
        **_against_trial(best, last.val_accuracy),
        "epochs": [epoch.to_dict() for epoch in epochs],
    }
    if last.diverged:
        note(f"warning: the loss diverged in epoch {last.number}", style="yellow")
    if as_json:
        print_json(found)
    else:
        print_validation(found)


def _against_trial(best: BestConfig, accuracy: float) -> dict[str, Any]:
    stored = best.provenance.get("val_accuracy")
    if not isinstance(stored, float):
        return {"trial_val_accuracy": None, "against_trial": None}
    off = f"{100 * (accuracy - stored):+.2f} points off: other versions, device, images or settings"
    return {"trial_val_accuracy": stored, "against_trial": "the same" if stored == accuracy else off}
