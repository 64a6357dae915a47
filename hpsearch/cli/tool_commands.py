"""The commands about data sets and models: data and summary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.console import print_blocks, print_json, say
from hpsearch.cli.options import DataOption, JsonOption, parse_assignments
from hpsearch.config.registration import load_component_files
from hpsearch.config.train_config import resolve
from hpsearch.formatting import str_of
from hpsearch.report.blocks import Table, number_column, text_column
from hpsearch.training.data.files import prepare

if TYPE_CHECKING:
    from hpsearch.training.model_summary import Layer, Summary

INPUT_SHAPE = (1, 28, 28)
CLASSES = 10
SHADES = " .:-=+*#%@"
"""From dark to bright, for an image in text."""


def data(
    dataset: Annotated[str, typer.Argument(metavar="[NAME]", help="fashion-mnist, mnist or kmnist.")] = "fashion-mnist",
    folder: DataOption = None,
    index: Annotated[
        int | None, typer.Option("--index", metavar="N", min=0, help="Print training image N and its matrix of intensities instead.")
    ] = None,
    picture: Annotated[Path, typer.Option("--picture", metavar="FILE", help="The file to write the grid of random images to.")] = Path(
        "samples.png"
    ),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the random images.")] = 0,
    json: JsonOption = False,
) -> None:
    """Find and verify a data set, count its classes, and draw a grid of random training images."""
    root = prepare(dataset, folder)
    from hpsearch.training.data.samples import sample_grid, training_image  # loads torch
    from hpsearch.training.data.split import load_training_images

    if index is not None:
        image, label = training_image(dataset, index, folder=root)
        _print_image(dataset, index, label, image[0].tolist(), as_json=json)
        return
    images = load_training_images(dataset, folder=root)
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    picture.write_bytes(sample_grid(images, seed=seed))
    count, channels, height, width = images.images.shape
    if json:
        facts = {"images": count, "shape": [channels, height, width], "classes": dict(zip(images.classes, counts, strict=True))}
        print_json({"dataset": dataset, "folder": str(root), **facts, "picture": str(picture)})
        return
    say(f"{dataset} is in {root}; its files are complete.")
    say(f"{count:,} training images of {channels} × {height} × {width}. The test images are read for the final score only.")
    rows = tuple((str(label), name, f"{n:,}") for label, (name, n) in enumerate(zip(images.classes, counts, strict=True)))
    print_blocks(Table(columns=(number_column("label"), text_column("class"), number_column("images")), rows=rows))
    say(f"Wrote {picture}: random training images, seed {seed}.")


def _print_image(dataset: str, index: int, label: str, matrix: list[list[int]], *, as_json: bool) -> None:
    if as_json:
        print_json({"dataset": dataset, "index": index, "class": label, "intensities": matrix})
        return
    say(f"Training image {index} of {dataset}: {label}")
    for row in matrix:
        say("".join(2 * SHADES[value * len(SHADES) // 256] for value in row))
    say()
    for row in matrix:
        say(" ".join(f"{value:3d}" for value in row))


def summary(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="cnn, lenet5, or a model from --use.", show_default=False)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Options of the model.", show_default=False)
    ] = None,
    use: Annotated[
        list[Path] | None, typer.Option("--use", metavar="FILE", help="A component file that registers models; may be repeated.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the layers of a model, each with its output shape, parameters, bytes and FLOPs for one image."""
    catalog = load_component_files(path.resolve() for path in use or [])
    options = parse_assignments(settings or [])
    config = resolve({("trainer", "model"): model, **{("model", name): value for name, value in options.items()}}, catalog=catalog, seed=0)
    from hpsearch.training.model_summary import summarize  # loads torch

    table = summarize(config, INPUT_SHAPE, CLASSES)
    if json:
        print_json({"model": model, "options": dict(config.model.options), **asdict(table)})
        return
    columns = (
        text_column("layer"),
        text_column("kind", 1),
        text_column("output"),
        number_column("parameters"),
        number_column("trainable", 3),
        number_column("bytes", 2),
        number_column("FLOPs"),
    )
    rows = [(layer.name, layer.kind, " × ".join(map(str, layer.output_shape)), *_sizes(layer)) for layer in table.layers]
    rows.append(("all", "", "", *_sizes(table)))
    shape = " × ".join(map(str, INPUT_SHAPE))
    say(f"{model} on {shape}: {' '.join(f'{name}={str_of(value)}' for name, value in config.model.options.items())}")
    print_blocks(Table(columns=columns, rows=tuple(rows)))
    say(f"{table.n_parameters:,} parameters, {table.trainable:,} trainable, {table.bytes / 1024:,.2f} KB in float32.")


def _sizes(each: Layer | Summary) -> tuple[str, ...]:
    return f"{each.n_parameters:,}", f"{each.trainable:,}", f"{each.bytes:,}", f"{each.flops:,}"
