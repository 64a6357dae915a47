"""The commands about what a search stands on: data, summary and doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import print_blocks, print_json, say
from hpsearch.cli.options import DataOption, JsonOption, RunsOption, StorageOption
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.report.blocks import Table, number_column, prose_column, text_column

INPUT_SHAPE = (1, 28, 28)
CLASSES = 10


def data(
    dataset: Annotated[str, typer.Argument(metavar="[NAME]", help="fashion-mnist, mnist or kmnist.")] = "fashion-mnist",
    folder: DataOption = None,
    index: Annotated[int | None, typer.Option("--index", min=0, help="Show one training image and its matrix of intensities.")] = None,
    picture: Annotated[Path, typer.Option("--picture", metavar="FILE", help="Where to write the grid of random samples.")] = Path(
        "samples.png"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random samples.")] = 0,
    json: JsonOption = False,
) -> None:
    """Say where a data set is, verify it, count its classes, and draw a grid of random training images."""
    from hpsearch.training.data.files import prepare

    root = prepare(dataset, folder, allow_download=True)
    if index is not None:
        _print_image(dataset, index, root, as_json=json)
        return
    from hpsearch.training.data.samples import sample_grid
    from hpsearch.training.data.split import load_training_images

    images = load_training_images(dataset, folder=root)
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    picture.write_bytes(sample_grid(images, seed=seed))
    count, channels, height, width = images.images.shape
    if json:
        facts = {"images": count, "shape": [channels, height, width], "classes": dict(zip(images.classes, counts, strict=True))}
        print_json({"dataset": dataset, "folder": str(root), **facts, "picture": str(picture)})
        return
    say(f"{dataset} is in {root}; its files are whole.")
    say(f"{count:,} training images of {channels} × {height} × {width}; the test images wait for the final score.")
    rows = tuple((str(label), name, f"{n:,}") for label, (name, n) in enumerate(zip(images.classes, counts, strict=True)))
    print_blocks(Table(columns=(number_column("label"), text_column("class"), number_column("images")), rows=rows))
    say(f"Wrote {picture}: random samples, seed {seed}.")


def summary(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="cnn, lenet5, or one that --use registers.", show_default=False)],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Its options.", show_default=False)] = None,
    use: Annotated[list[Path] | None, typer.Option("--use", metavar="FILE", help="A component file.")] = None,
    json: JsonOption = False,
) -> None:
    """Print a model's layers: output shapes, parameters, bytes and FLOPs of one image."""
    from hpsearch.cli.search_commands import parse_assignments
    from hpsearch.config.components import BUILT_IN
    from hpsearch.config.registration import load_component_file
    from hpsearch.config.train_config import resolve
    from hpsearch.errors import ConfigError
    from hpsearch.formatting import str_of

    catalog = BUILT_IN
    for path in use or []:
        catalog = catalog.extended(load_component_file(path.resolve()))
    options = parse_assignments(settings or [], ConfigError)
    config = resolve({("trainer", "model"): model, **{("model", name): value for name, value in options.items()}}, catalog=catalog, seed=0)
    from hpsearch.training.model_summary import summarize

    table = summarize(config, INPUT_SHAPE, CLASSES)
    if json:
        from dataclasses import asdict

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
    rows = [
        (
            layer.name,
            layer.kind,
            " × ".join(map(str, layer.output_shape)),
            f"{layer.n_parameters:,}",
            f"{layer.trainable:,}",
            f"{layer.bytes:,}",
            f"{layer.flops:,}",
        )
        for layer in table.layers
    ]
    rows.append(("all", "", "", f"{table.n_parameters:,}", f"{table.trainable:,}", f"{table.bytes:,}", f"{table.flops:,}"))
    shape = " × ".join(map(str, INPUT_SHAPE))
    say(f"{model} on {shape}: {' '.join(f'{name}={str_of(value)}' for name, value in config.model.options.items())}")
    print_blocks(Table(columns=columns, rows=tuple(rows)))
    say(f"{table.n_parameters:,} parameters, {table.trainable:,} trainable, {table.bytes / 1024:,.2f} KB in float32.")


def doctor(
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    folder: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check what a search needs: Python, packages, data, storage, device; each is ok, or how to fix it."""
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.doctor import check_machine

    findings = check_machine(Workspace(storage=storage, runs=runs, data=folder))
    if json:
        print_json([{"what": finding.what, "ok": finding.ok, "says": finding.says, "fix": finding.fix} for finding in findings])
    else:
        rows = tuple(
            (finding.what, "ok" if finding.ok else "FIX", finding.says + (f"\n→ {finding.fix}" if finding.fix else ""))
            for finding in findings
        )
        print_blocks(Table(columns=(text_column("what"), text_column(""), prose_column("found")), rows=rows))
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _print_image(dataset: str, index: int, root: Path, *, as_json: bool) -> None:
    from hpsearch.training.data.samples import training_image

    image, label = training_image(dataset, index, folder=root)
    matrix = image[0].tolist()
    if as_json:
        print_json({"dataset": dataset, "index": index, "class": label, "intensities": matrix})
        return
    say(f"Training image {index} of {dataset}: {label}")
    shades = " .:-=+*#%@"
    for row in matrix:
        say("".join(2 * shades[value * len(shades) // 256] for value in row))
    say()
    for row in matrix:
        say(" ".join(f"{value:3d}" for value in row))
