"""The command reproduce: a stored trial again, epoch by epoch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say
from hpsearch.cli.options import DataOption, JsonOption, RunsOption, StorageOption, StudyArgument
from hpsearch.config.paths import DEFAULT_RUNS
from hpsearch.formatting import many, show_duration
from hpsearch.report.blocks import Table, number_column, text_column

if TYPE_CHECKING:
    from hpsearch.workflows.reproduce import EpochComparison, Reproduction, ReproductionResult

NOT_REPRODUCED = 1
SHOWN = {
    "val acc": "val_accuracy",
    "train acc": "train_accuracy",
    "val loss": "val_loss",
    "train loss": "train_loss",
    "lr": "learning_rate",
}


def reproduce(
    study: StudyArgument,
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="The trial's number.", show_default=False)],
    trust: Annotated[bool, typer.Option("--trust", help="Go on with component files that have changed since.")] = False,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    data: DataOption = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: the trial's own, if it is here]")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a stored trial again and compare each epoch and its weights: identical on the same machine with the same versions.

    Where something differs (versions, device, split, component files) it is named, and the trial's value is compared within what chance
    allows. A pruned trial is trained to its last epoch. Exit code 0: identical, or within chance; 1: not reproduced.
    """
    from hpsearch.search.worker_pool import train_like_a_worker
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.reproduce import compare_epochs, prepare_reproduction
    from hpsearch.workflows.run import study_name

    train_like_a_worker()
    reproduction = prepare_reproduction(
        study_name(study), number, Workspace(storage=storage, runs=runs, data=data), device=device, trust=trust
    )
    _announce(reproduction)
    pairs = []
    for pair in reproduction.train():
        pairs.append(pair)
        _say_epoch(pair, len(reproduction.trial.epochs))
    verdict = compare_epochs(reproduction, pairs)
    if json:
        print_json({"study": reproduction.study, "trial": number, "state": reproduction.trial.state, **verdict.to_dict()})
    else:
        _print_verdict(reproduction, verdict)
    if not verdict.is_reproduced:
        sys.exit(NOT_REPRODUCED)


def _announce(reproduction: Reproduction) -> None:
    trial = reproduction.trial
    origin = f", a {trial.origin}" if trial.origin.startswith(("copy of", "retry of")) else ""
    epochs = many(len(trial.epochs), "epoch")
    pruned = " before it was pruned" if trial.state == "pruned" else ""
    note(
        f"Trial {trial.number} of '{reproduction.study}'{origin}: {trial.model}, {epochs}{pruned}, which took {show_duration(trial.seconds)}."
    )
    for each in reproduction.differences:
        note(f"Not the same as then: {each}", style="yellow")


def _say_epoch(pair: EpochComparison, epochs: int) -> None:
    said = f", not {pair.then.val_accuracy:.4f}" if pair.now.val_accuracy != pair.then.val_accuracy else ""
    same = "differs" if pair.differing else "identical"
    note(
        f"epoch {pair.now.number}/{epochs}: training {pair.now.train_accuracy:.4f}, validation {pair.now.val_accuracy:.4f}{said}, "
        f"{pair.now.images_per_second:,.0f} images/s: {same}"
    )


def _print_verdict(reproduction: Reproduction, verdict: ReproductionResult) -> None:
    last = verdict.pairs[-1]
    called = f"Trial {reproduction.trial.number} of '{reproduction.study}'"
    first = verdict.first_difference
    if first is None and verdict.is_reproduced:
        say(
            f"{called} is identical: {len(verdict.pairs)} of {len(verdict.pairs)} epochs in losses, accuracies and learning rate, "
            f"and the weights (SHA-256 {last.now.weights_hash[:12]}…)."
        )
        return
    _print_epochs(verdict)
    say()
    if first is None:
        say(f"{called} is not reproduced: it ended after epoch {last.now.number} of {len(reproduction.trial.epochs)}.")
    else:
        apart = 100 * (last.now.val_accuracy - last.then.val_accuracy)
        how = "is reproduced within the spread" if verdict.is_reproduced else "is not reproduced"
        say(
            f"{called} {how}: {apart:+.2f} points of validation accuracy after epoch {last.now.number}; "
            f"{_spread(reproduction)} allow ± {100 * verdict.margin:.2f} by chance. "
            f"Epoch {first.now.number} is the first that differs."
        )
    if verdict.differences:
        say(f"Not the same as then: {'; '.join(map(str, verdict.differences))}.")
    else:
        say(f"Versions, device, split and component files are those on record{_doubts(reproduction)}.")


def _spread(reproduction: Reproduction) -> str:
    return f"{reproduction.best.data.validation_images:,} images" if reproduction.seed_margin is None else "the seeds of the finalists"


def _doubts(reproduction: Reproduction) -> str:
    """What the record does not say."""
    doubts = [] if "processor" in reproduction.trial.run else ["the processor is not on record"]
    if len(reproduction.trial.attempts) > 1:
        doubts.append(f"the trial was trained in {len(reproduction.trial.attempts)} attempts, of which the last one's are on record")
    return f"; {', and '.join(doubts)}" if doubts else ""


def _print_epochs(verdict: ReproductionResult) -> None:
    rows = []
    for pair in verdict.pairs:
        cells = [str(pair.now.number)]
        for name in SHOWN.values():
            then, now = getattr(pair.then, name), getattr(pair.now, name)
            cells.append(f"{now:.4g}" if name not in pair.differing else f"{then:.6g} → {now:.6g}")
        rows.append((*cells, "other" if "weights_hash" in pair.differing else "the same"))
    drops = {"lr": 4, "train loss": 3, "train acc": 2, "val loss": 1}
    columns = (number_column("epoch"), *(number_column(name, drops.get(name, 0)) for name in SHOWN), text_column("weights"))
    print_blocks(Table(columns=columns, rows=tuple(rows)))
