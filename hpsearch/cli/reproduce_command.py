"""The command reproduce: train a stored trial again and compare it epoch by epoch."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hpsearch.cli.console import note, print_blocks, print_json, say, warn
from hpsearch.cli.options import JsonOption, StudyArgument
from hpsearch.cli.progress_view import TrainingView
from hpsearch.cli.workspace_options import DataWorkspace
from hpsearch.formatting import many, show_duration
from hpsearch.report.blocks import Table, number_column, text_column
from hpsearch.search.worker_pool import train_like_a_worker
from hpsearch.workflows.precision import slow_precision
from hpsearch.workflows.reproduce import EpochComparison, Reproduction, ReproductionResult, compare_epochs, prepare_reproduction
from hpsearch.workflows.run import study_name

NOT_REPRODUCED = 1
SHOWN = {
    "val_accuracy": number_column("val acc"),
    "train_accuracy": number_column("train acc", 2),
    "val_loss": number_column("val loss", 1),
    "train_loss": number_column("train loss", 3),
    "learning_rate": number_column("lr", 4),
}
"""Fields of an epoch, and their columns in the table of epochs."""


def reproduce(
    study: StudyArgument,
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="The number of the trial.", show_default=False)],
    *,
    trust: Annotated[bool, typer.Option("--trust", help="Run component files that you have not run before, or that have changed.")] = False,
    workspace: DataWorkspace,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: the trial's device, if this machine has it]"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a stored trial again and compare every epoch. On the same machine with the same versions the weights are identical.

    The output names what differs from the trial's record: versions, device, split or component files. The trial's accuracy is then
    compared within what chance allows. A pruned trial is trained to its last epoch. Exit code 0: identical, or within chance; 1: not
    reproduced.
    """
    train_like_a_worker()
    reproduction = prepare_reproduction(study_name(study), number, workspace, device=device, trust=trust)
    _announce(reproduction)
    pairs = []
    with TrainingView(epochs=len(reproduction.trial.epochs)) as view:
        for pair in reproduction.train():
            pairs.append(pair)
            view.show(pair.now, note=_difference(pair))
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
        f"Trial {trial.number} of '{reproduction.study}'{origin}: {trial.model}, {epochs}{pruned}, trained in {show_duration(trial.seconds)}."
    )
    warn(slow_precision([reproduction.best.config.precision], reproduction.device))
    for each in reproduction.differences:
        note(f"Differs from the record: {each}", style="yellow")


def _difference(pair: EpochComparison) -> str:
    if not pair.differing:
        return ": identical"
    same = pair.now.val_accuracy == pair.then.val_accuracy
    return ": differs" if same else f": differs, the record has validation {pair.then.val_accuracy:.4f}"


def _print_verdict(reproduction: Reproduction, verdict: ReproductionResult) -> None:
    last = verdict.pairs[-1]
    name = f"Trial {reproduction.trial.number} of '{reproduction.study}'"
    first = verdict.first_difference
    if first is None and verdict.is_reproduced:
        say(
            f"{name} is identical: {len(verdict.pairs)} of {len(verdict.pairs)} epochs in losses, accuracies and learning rate, "
            f"and the weights (SHA-256 {last.now.weights_hash[:12]}…)."
        )
        return
    _print_epochs(verdict)
    say()
    if first is None:
        say(f"{name} is not reproduced: it ended after epoch {last.now.number} of {len(reproduction.trial.epochs)}.")
    else:
        difference = 100 * (last.now.val_accuracy - last.then.val_accuracy)
        images = f"{reproduction.best.data.validation_images:,} images"
        result = "is reproduced within the spread" if verdict.is_reproduced else "is not reproduced"
        say(
            f"{name} {result}: {difference:+.2f} points of validation accuracy after epoch {last.now.number}; "
            f"{images if reproduction.seed_margin is None else 'the seeds of the finalists'} allow ± {100 * verdict.margin:.2f} by chance. "
            f"Epoch {first.now.number} is the first that differs."
        )
    if verdict.differences:
        say(f"Differs from the record: {'; '.join(map(str, verdict.differences))}.")
    else:
        say(f"Versions, device, split and component files are the recorded ones{_doubts(reproduction)}.")


def _doubts(reproduction: Reproduction) -> str:
    """Return a text that names facts which the record of the trial does not contain."""
    doubts = [] if "processor" in reproduction.trial.run else ["the processor is not recorded"]
    if len(reproduction.trial.attempts) > 1:
        doubts.append(f"the trial was trained in {len(reproduction.trial.attempts)} attempts, and the record describes only the last one")
    return f"; {', and '.join(doubts)}" if doubts else ""


def _print_epochs(verdict: ReproductionResult) -> None:
    rows = []
    for pair in verdict.pairs:
        cells = [str(pair.now.number)]
        for name in SHOWN:
            then, now = getattr(pair.then, name), getattr(pair.now, name)
            cells.append(f"{now:.4g}" if name not in pair.differing else f"{then:.6g} → {now:.6g}")
        rows.append((*cells, "other" if "weights_hash" in pair.differing else "the same"))
    print_blocks(Table(columns=(number_column("epoch"), *SHOWN.values(), text_column("weights")), rows=tuple(rows)))
