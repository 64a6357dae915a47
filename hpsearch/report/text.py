"""Sentences and tables of results. The HTML page, the terminal and the dashboard's note use the same functions."""

from __future__ import annotations

from dataclasses import replace

from hpsearch.analysis.ablation import AblationStep, Explanation
from hpsearch.analysis.finalists import Finalist, FinalistsResult, selection_repeats
from hpsearch.analysis.leaderboard import Leaderboard, RankedTrial, last_train_accuracy, setting_words
from hpsearch.analysis.metrics import Estimate, Metrics
from hpsearch.config.epoch import Epoch
from hpsearch.formatting import many, show_duration, show_loss, str_of
from hpsearch.report.blocks import Block, Cells, Paragraph, Table, number_column, paragraphs, prose_column, tabulate, text_column
from hpsearch.storage.records import TrialRow

BAR_WIDTH = 20
"""Length of the longest bar, in characters."""


def trial_counts(board: Leaderboard) -> str:
    """Return the number of trials by state, such as `16 trials (9 complete, 7 pruned)`.

    Args:
        board: the leaderboard of the study.

    Returns:
        The text.
    """
    counts = [f"{count} {'failed' if state == 'fail' else state}" for state, count in board.counts.items() if count]
    return f"{many(board.total, 'trial')} ({', '.join(counts)})" if counts else "no trials"


def leaderboard_table(name: str, board: Leaderboard, longest: int) -> Table:
    """Return the leaderboard as a table. It has the first trials and the best trial of each model.

    Args:
        name: name of the study.
        board: the leaderboard of the study.
        longest: number of first trials. The best trials of the models are added to these trials.

    Returns:
        A table with the settings of each trial below its row.
    """
    shown = board.top(longest)
    words = [setting_words(standing.trial) for standing in shown]
    shared = [word for word in words[0] if all(word in each for each in words)] if len(words) > 1 else []
    left = len(board.ranking) - len(shown)
    caption = f"Leaderboard of {name}: {trial_counts(board)}, ranked by validation accuracy."
    caption += f" {left} more: `hpsearch show {name} --csv` has all." if left else ""
    caption += f" The same in all rows: {' '.join(shared)}." if shared else ""
    cells: Cells[RankedTrial] = {
        number_column("rank"): lambda each: str(each.rank),
        number_column("trial"): lambda each: str(each.trial.number),
        text_column("model"): lambda each: each.trial.model,
        number_column("val accuracy"): lambda each: percentage(each.val_accuracy),
        text_column("95 % interval", 2): lambda each: show_interval(each.interval),
        number_column("train", 5): lambda each: percentage(last_train_accuracy(each.trial)),
        number_column("parameters", 1): lambda each: show_count(each.trial.n_parameters),
        number_column("epochs", 4): lambda each: str(len(each.trial.epochs)),
        number_column("time", 3): lambda each: show_duration(each.trial.seconds),
        text_column(""): _standing_notes,
    }
    details = tuple(tuple(word for word in each if word not in shared) for each in words)
    return replace(tabulate(caption, shown, cells), details=details)


def _standing_notes(standing: RankedTrial) -> str:
    notes = (
        "unresolved" if standing.unresolved and standing.rank > 1 else "",
        standing.trial.origin,
        "diverged" if standing.trial.end.get("diverged") else "",
    )
    return ", ".join(note for note in notes if note)


def finalists_table(verdict: FinalistsResult) -> Table:
    """Return the table of the finalists, the winner first.

    Args:
        verdict: the result of the finalists. At least one finalist must have run.

    Returns:
        The table.
    """
    cells: Cells[Finalist] = {
        text_column("finalist"): lambda each: each.candidate.name,
        text_column("model", 3): lambda each: each.candidate.model,
        text_column("verdict"): lambda each: _finalist_notes(each, verdict.winner),
        number_column("accuracy"): lambda each: percentage(each.mean.value),
        text_column("95 % interval", 1): lambda each: show_interval(each.mean.interval),
        number_column("± seeds", 7): lambda each: "" if each.deviation is None else f"{100 * each.deviation:.2f}",
        number_column("probability of best", 4): lambda each: f"{each.best:.2f}",
        number_column("points behind the winner", 2): lambda each: _with_interval(each.behind),
        number_column("in the search", 6): lambda each: percentage(each.candidate.value),
        number_column("search − mean", 8): lambda each: "" if each.optimism is None else f"{100 * each.optimism:+.2f}",
        number_column("runs", 5): lambda each: str(len(each.scores)),
        number_column("parameters", 9): lambda each: show_count(each.candidate.n_parameters),
    }
    return tabulate(f"The finalists, up to {verdict.seeds} seeds each", verdict.finalists, cells)


def _finalist_notes(finalist: Finalist, winner: Finalist | None) -> str:
    notes = (
        "winner" if finalist == winner else "tied" if finalist.is_tied else "",
        "baseline" if finalist.candidate.is_baseline else "",
        f"clearly behind after {finalist.dropped_after}" if finalist.dropped_after else "",
    )
    return ", ".join(note for note in notes if note)


def verdict_reading(verdict: FinalistsResult) -> list[str]:
    """Return the result of the finalists in sentences.

    Args:
        verdict: the result of the finalists.

    Returns:
        Texts of one or two sentences. The first text names the winner.
    """
    winner = verdict.winner
    if winner is None:
        return ["The winner is not chosen yet: the same command continues."]
    low, high = winner.mean.interval
    fresh = [repeat for repeat in winner.scores if repeat > selection_repeats(verdict.seeds)]
    source = f"by {many(len(fresh), 'seed')} that did not choose it" if fresh else "by the seeds that chose it, so it is probably too high"
    lines = [
        f"Winner: {winner.candidate.name}, {winner.candidate.model}, {100 * winner.mean.value:.2f} % "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %), measured {source}. "
        f"It is the best finalist with probability {winner.best:.2f}."
    ]
    if winner.candidate.is_baseline:
        lines.append("The winner is the baseline: the search found nothing better.")
    elif verdict.gain is not None:
        baseline = next(each.candidate.name for each in verdict.finalists if each.candidate.is_baseline)
        shown = "" if verdict.gain.interval[0] > 0 else " This gain may be chance."
        lines.append(f"Gain over the baseline ({baseline}): {points(verdict.gain)}.{shown}")
    if winner.optimism is not None:
        side = "higher" if winner.optimism > 0 else "lower"
        lines.append(f"The search measured {100 * abs(winner.optimism):.2f} points {side} for the winner.")
    if verdict.tied:
        names = ", ".join(each.candidate.name for each in verdict.tied)
        smaller = verdict.smaller
        size = (
            "None of them is smaller."
            if smaller is None
            else f"The smallest is {smaller.candidate.name}: {smaller.candidate.n_parameters:,} parameters against {winner.candidate.n_parameters:,}."
        )
        lines.append(f"Tied with the winner: {names}. {size}")
    if verdict.failed:
        lines.append(f"Left out because their runs failed repeatedly: {', '.join(verdict.failed)}.")
    if not verdict.is_over:
        lines.append("Not all runs are done: the same command continues.")
    return lines


def verdict_blocks(name: str, verdict: FinalistsResult) -> list[Block]:
    """Return the table of the finalists and their result.

    Args:
        name: name of the study.
        verdict: the result of the finalists.

    Returns:
        A table and sentences.
    """
    if not verdict.finalists:
        return [Paragraph(text=f"{name}: no finalist has run yet.")]
    return [finalists_table(verdict), *paragraphs(verdict_reading(verdict))]


def steps_table(explanation: Explanation, trial: int) -> Table:
    """Return the steps from the baseline to a trial.

    Args:
        explanation: the ablation path and its measurements.
        trial: number of the trial at the end of the path.

    Returns:
        A table with one row for each step. If a step also sets other parameters, they stand below its row.
    """
    rows = tuple(
        (
            str(number),
            step.parameter or "the baseline",
            step.change,
            percentage(step.accuracy.value if step.accuracy else None),
            _with_interval(step.gain),
            step_verdict(step),
        )
        for number, step in enumerate(explanation.steps)
    )
    return Table(
        caption=f"The steps from the baseline to trial {trial}, {many(explanation.seeds, 'seed')} each",
        columns=(
            number_column("step", 2),
            text_column("parameter"),
            prose_column("change"),
            number_column("accuracy", 1),
            number_column("gain, points"),
            prose_column(""),
        ),
        rows=rows,
        details=tuple(
            ("also sets", *(f"{name}={str_of(value)}" for name, value in step.settings.items())) if step.settings else ()
            for step in explanation.steps
        ),
    )


def explanation_blocks(explanation: Explanation, trial: int) -> list[Block]:
    """Return the steps of an ablation and their result.

    Args:
        explanation: the ablation path and its measurements.
        trial: number of the trial at the end of the path.

    Returns:
        A table and sentences.
    """
    return [steps_table(explanation, trial), *paragraphs(explanation_reading(explanation))]


def explanation_reading(explanation: Explanation) -> list[str]:
    """Return the result of an ablation in sentences.

    Args:
        explanation: the ablation path and its measurements.

    Returns:
        Texts of one or two sentences.
    """
    lines = []
    if explanation.total is not None:
        helped = ", ".join(f"{step.parameter} ({100 * step.gain.value:+.2f})" for step in explanation.helped if step.gain is not None)
        lines.append(
            f"The whole path gains {points(explanation.total)}. "
            f"What made the difference: {helped or 'no single change that these seeds can show'}."
        )
    if not explanation.is_over:
        lines.append("Not all runs are done: the same command continues.")
    return lines


def step_verdict(step: AblationStep) -> str:
    """Return whether a change helped, in a few words.

    Args:
        step: one step of an ablation.

    Returns:
        `helped`, `hurt` or `no difference shown`; an empty text if the step was not measured.
    """
    if step.gain is None:
        return ""
    return "helped" if step.gain.interval[0] > 0 else "hurt" if step.gain.interval[1] < 0 else "no difference shown"


def confusion_table(metrics: Metrics, caption: str) -> Table:
    """Return a confusion matrix in counts.

    Args:
        metrics: the metrics of a model.
        caption: the title.

    Returns:
        A table with a row for each true class and a column for each predicted class.
    """
    names = [each.name for each in metrics.classes]
    rows = tuple((name, *map(str, row)) for name, row in zip(names, metrics.confusion, strict=True))
    return Table(caption=caption, columns=(text_column(""), *map(number_column, names)), rows=rows)


def percentage(share: float | None) -> str:
    """Return a share in percent, such as `91.25 %`.

    Args:
        share: a number from 0 to 1, if it is known.

    Returns:
        The text; empty if the share is not known.
    """
    return "" if share is None else f"{100 * share:.2f} %"


def show_interval(interval: tuple[float, float]) -> str:
    """Return an interval of shares in percent, such as `90.68 to 91.79`.

    Args:
        interval: both ends, from 0 to 1.

    Returns:
        The text.
    """
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def show_count(count: int | None) -> str:
    """Return a number with separators, such as `61,706`.

    Args:
        count: the number, if it is known.

    Returns:
        The text; empty if the number is not known.
    """
    return "" if count is None else f"{count:,}"


def points(estimate: Estimate) -> str:
    """Return a difference of accuracies and its interval, in percentage points.

    Args:
        estimate: the difference, as a share from -1 to 1.

    Returns:
        A text like `+0.42 points (+0.10 to +0.74)`.
    """
    return _with_interval(estimate, " points")


def _with_interval(estimate: Estimate | None, unit: str = "") -> str:
    if estimate is None:
        return ""
    low, high = estimate.interval
    return f"{100 * estimate.value:+.2f}{unit} ({100 * low:+.2f} to {100 * high:+.2f})"


def epochs_table(trial: TrialRow) -> Table:
    """Return a table with one row for each epoch of a trial.

    Args:
        trial: a trial that has trained at least one epoch.

    Returns:
        The table. The last column draws the validation accuracy as a bar.
    """
    accuracies = [epoch.val_accuracy for epoch in trial.epochs]
    low, high = min(accuracies), max(accuracies)

    def bar(epoch: Epoch) -> str:
        return "█" * max(1, round(BAR_WIDTH * ((epoch.val_accuracy - low) / (high - low) if high > low else 1.0)))

    cells: Cells[Epoch] = {
        number_column("epoch"): lambda epoch: str(epoch.number),
        number_column("train loss", 4): lambda epoch: show_loss(epoch.train_loss),
        number_column("train acc", 2): lambda epoch: percentage(epoch.train_accuracy),
        number_column("val loss", 3): lambda epoch: show_loss(epoch.val_loss),
        number_column("val acc"): lambda epoch: percentage(epoch.val_accuracy),
        number_column("lr", 5): lambda epoch: f"{epoch.learning_rate:.3g}",
        number_column("time", 6): lambda epoch: show_duration(epoch.seconds),
        number_column("images/s", 7): lambda epoch: f"{epoch.images_per_second:,.0f}",
        text_column("", 8): bar,
    }
    return tabulate(f"Trial {trial.number}, epoch by epoch", trial.epochs, cells)
