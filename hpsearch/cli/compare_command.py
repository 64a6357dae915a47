"""The command compare: two trials, configurations or final models on the same images."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say, warn
from hpsearch.cli.options import JsonOption
from hpsearch.cli.progress_view import TrainingView
from hpsearch.cli.workspace_options import TrainingWorkspace
from hpsearch.errors import UsageError
from hpsearch.formatting import many, str_of
from hpsearch.report.blocks import Table, number_column, prose_column, text_column
from hpsearch.search.worker_pool import train_like_a_worker
from hpsearch.workflows.compare import (
    CONFIG_ENDINGS,
    EvaluatedModel,
    ModelComparison,
    UntrainedModel,
    compare_models,
    find_model,
    require_same_images,
)
from hpsearch.workflows.precision import slow_precision

SIDE_HELP = "A trial, STUDY/N; an exported configuration, FILE.toml or FILE.json; or the folder of a final model."


def compare(
    first: Annotated[str, typer.Argument(metavar="FIRST", help=SIDE_HELP, show_default=False)],
    second: Annotated[str, typer.Argument(metavar="SECOND", help=SIDE_HELP, show_default=False)],
    *,
    trust: Annotated[bool, typer.Option("--trust", help="Run component files that you have not run before, or that have changed.")] = False,
    workspace: TrainingWorkspace,
    json: JsonOption = False,
) -> None:
    """Compare two trials or exported configurations on their validation images, or two final models on the test images.

    The output has the settings that differ, the recall of each class, and the difference in accuracy with a paired interval and McNemar's
    test. A configuration is trained first, unless the storage has the trial that it was exported from.
    """
    if first == second:
        raise UsageError(f"{first} is compared with itself", hint="Name two different ones.")
    if first.endswith(CONFIG_ENDINGS) or second.endswith(CONFIG_ENDINGS):
        train_like_a_worker()
    sides = find_model(first, workspace, trust=trust), find_model(second, workspace, trust=trust)
    require_same_images(*sides)
    compared = compare_models(*(_trained(side, workspace.device) for side in sides))
    if json:
        print_json(compared.to_dict())
    else:
        _print_comparison(compared)


def _trained(side: EvaluatedModel | UntrainedModel, device: str) -> EvaluatedModel:
    if isinstance(side, EvaluatedModel):
        if side.source:
            note(f"{side.label} was trained as {side.source}. The predictions of that trial are compared.")
        return side
    config = side.best.config
    note(f"{side.label} is trained first: {config.model.name}, {many(config.epochs, 'epoch')}.")
    warn(slow_precision([config.precision], device))
    with TrainingView(epochs=config.epochs, label=side.label) as view:
        return side.train(device=device, show=view.show)


def _print_comparison(compared: ModelComparison) -> None:
    one, two = compared.first.label, compared.second.label
    settings = tuple((name, _shown(mine), _shown(theirs)) for name, (mine, theirs) in compared.settings.items())
    sides = (text_column("setting"), prose_column(one), prose_column(two))
    differing = Table(columns=sides, rows=settings or (("no setting differs", "", ""),))
    rows = tuple(
        (mine.name, f"{mine.recall:.3f}", f"{theirs.recall:.3f}", f"{mine.recall - theirs.recall:+.3f}", f"{mine.support:,}")
        for mine, theirs in zip(compared.metrics[0].classes, compared.metrics[1].classes, strict=True)
    )
    columns = (text_column("recall of"), *map(number_column, (one, two, "difference")), number_column("images", 1))
    print_blocks(differing, Table(columns=columns, rows=rows))
    say()
    found, (mine, theirs) = compared.found, compared.metrics
    low, high = found.interval
    split = f" (split {compared.first.images.split[:12]}…)" if compared.first.images.split else ""
    say(f"Accuracy {100 * mine.accuracy:.2f} % and {100 * theirs.accuracy:.2f} % of {mine.n_images:,} {compared.first.images}{split}.")
    say(
        f"Difference {100 * found.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}, paired by image: "
        f"only {one} is right on {found.only_first:,} images, only {two} on {found.only_second:,} (McNemar's exact test)."
    )
    say(compared.sentence)
    if compared.is_significant:
        say("This holds for these two models as they were trained. Another seed may give another result.")


def _shown(value: object) -> str:
    return str_of(value) if isinstance(value, bool | int | float | str) else "" if value is None else str(value)
