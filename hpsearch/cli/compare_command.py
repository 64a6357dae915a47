"""The command compare: two trials, best configs or final models, on the same images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say
from hpsearch.cli.options import DataOption, DeviceOption, JsonOption, RunsOption, StorageOption
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.formatting import many
from hpsearch.report.blocks import Table, number_column, prose_column, text_column

if TYPE_CHECKING:
    from hpsearch.workflows.compare import EvaluatedModel, ModelComparison, UntrainedModel

SIDE_HELP = "A trial, STUDY/N; a best config, FILE.toml or FILE.json; or the folder of a final model."


def compare(
    first: Annotated[str, typer.Argument(metavar="FIRST", help=SIDE_HELP, show_default=False)],
    second: Annotated[str, typer.Argument(metavar="SECOND", help=SIDE_HELP, show_default=False)],
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compare two trials or best configs on their validation images, or two final models on the test images: is one really better?

    Prints the settings that differ, the recall of each class, and the difference in accuracy with a paired interval and McNemar's test.
    A best config is trained first, unless the trial that it was exported from is in the storage.
    """
    from hpsearch.errors import UsageError
    from hpsearch.search.worker_pool import train_like_a_worker
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.compare import CONFIG_ENDINGS, compare_models, find_model, require_same_images

    if first == second:
        raise UsageError(f"{first} is compared with itself", hint="Name two different ones.")
    if first.endswith(CONFIG_ENDINGS) or second.endswith(CONFIG_ENDINGS):
        train_like_a_worker()
    workspace = Workspace(storage=storage, runs=runs, data=data, device=device)
    one, two = find_model(first, workspace), find_model(second, workspace)
    require_same_images(one, two)
    compared = compare_models(_trained(one, device), _trained(two, device))
    if json:
        print_json(compared.to_dict())
    else:
        _print_comparison(compared)


def _trained(side: EvaluatedModel | UntrainedModel, device: str) -> EvaluatedModel:
    from hpsearch.workflows.compare import EvaluatedModel

    if isinstance(side, EvaluatedModel):
        if side.source:
            note(f"{side.label} was trained as {side.source}, whose predictions are compared.")
        return side
    epochs = side.best.config.epochs
    note(f"{side.label} is trained first: {side.best.config.model.name}, {many(epochs, 'epoch')}.")
    with tempfile.TemporaryDirectory(prefix="hpsearch-compare-") as folder:
        for epoch in side.train(Path(folder), device=device):
            note(
                f"{side.label}, epoch {epoch.number}/{epochs}: training {epoch.train_accuracy:.4f}, "
                f"validation {epoch.val_accuracy:.4f}, {epoch.images_per_second:,.0f} images/s"
            )
        return side.trained(Path(folder))


def _print_comparison(compared: ModelComparison) -> None:
    one, two = compared.first.label, compared.second.label
    settings = tuple((name, _shown(mine), _shown(theirs)) for name, (mine, theirs) in compared.settings.items())
    sides = (text_column("setting"), prose_column(one), prose_column(two))
    print_blocks(Table(columns=sides, rows=settings or (("no setting differs", "", ""),)))
    say()
    rows = tuple(
        (mine.name, f"{mine.recall:.3f}", f"{theirs.recall:.3f}", f"{mine.recall - theirs.recall:+.3f}", f"{mine.support:,}")
        for mine, theirs in zip(compared.metrics[0].classes, compared.metrics[1].classes, strict=True)
    )
    columns = (text_column("recall of"), *map(number_column, (one, two, "difference")), number_column("images", 1))
    print_blocks(Table(columns=columns, rows=rows))
    say()
    found, (mine, theirs) = compared.found, compared.metrics
    low, high = found.interval
    split = f" (split {compared.first.images.split[:12]}…)" if compared.first.images.split else ""
    say(f"Accuracy {100 * mine.accuracy:.2f} % and {100 * theirs.accuracy:.2f} % of {mine.n_images:,} {compared.first.images}{split}.")
    say(
        f"Difference {100 * found.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}, paired by image: "
        f"{found.only_first:,} that only {one} gets right, {found.only_second:,} that only {two} does (McNemar's exact test)."
    )
    say(compared.sentence)
    if compared.is_significant:
        say("That holds for these two as they were trained: another seed may say otherwise.")


def _shown(value: object) -> str:
    from hpsearch.formatting import str_of

    return str_of(value) if isinstance(value, bool | int | float | str) else "" if value is None else str(value)
