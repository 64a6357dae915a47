"""The first section of a report.

It has the main result in a few sentences. If there are several studies, it also says whether the studies may be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpsearch.analysis.leaderboard import N_BEST, RankedTrial, describe_settings
from hpsearch.analysis.metrics import compare
from hpsearch.formatting import many, show_duration
from hpsearch.report.blocks import Block, Bullets, Cells, Paragraph, number_column, paragraphs, tabulate, text_column
from hpsearch.report.study_results import StudyResults
from hpsearch.report.text import leaderboard_table, percentage, show_count, show_interval, verdict_blocks, verdict_reading

LEADERS = 10
"""Number of trials in the leaderboard of an HTML page and of the dashboard's note."""
LONGEST_TABLE = 20
"""Number of trials in the leaderboard in a terminal. The options `--json` and `--csv` print all trials."""


def answer(study: StudyResults) -> Iterator[Block]:
    """Yield the main result.

    It has the best trial and its lead over the next trial, and says how certain this lead is. It also has smaller trials,
    the cost of the search and the gain over the baseline.

    Args:
        study: the results of the study.

    Yields:
        Sentences, the main result first, then the leaderboard.
    """
    best, verdict = study.board.best, study.verdict
    if best is None:
        yield from (Paragraph(text=no_answer(study), kind="warning"), Paragraph(text=_cost(study)))
        return
    if verdict is not None and verdict.is_over and verdict.winner is not None:
        lead, *evidence = verdict_reading(verdict)
        chosen = next((trial for trial in study.trials if verdict.winner and trial.number == verdict.winner.candidate.trial), best.trial)
        yield Paragraph(text=lead, kind="lead")
        yield from paragraphs([f"Its settings: {describe_settings(chosen)}.", *evidence])
        yield Paragraph(text=f"In the search, {winner(study, best).removeprefix('Best: ')}", kind="aside")
        yield Paragraph(text=_cost(study))
    else:
        first, *others = search_sentences(study)
        yield first
        yield Paragraph(text=f"Its settings: {describe_settings(best.trial)}.")
        yield from others
    yield leaderboard_table(study.name, study.board, LEADERS)


def terminal_summary(study: StudyResults) -> Iterator[Block]:
    """Yield the main result in the order for a terminal. The user of a terminal sees the end of the output first.

    Args:
        study: the results of the study.

    Yields:
        The leaderboard, then sentences, then the finalists.
    """
    if study.board.best is None:
        yield Paragraph(text=no_answer(study), kind="warning")
    else:
        yield leaderboard_table(study.name, study.board, LONGEST_TABLE)
        yield from search_sentences(study)
    if study.verdict is not None:
        yield from verdict_blocks(study.name, study.verdict)


def search_sentences(study: StudyResults) -> Iterator[Paragraph]:
    """Yield the result of the search, without the finalists.

    Args:
        study: the results of the study. At least one trial must be complete.

    Yields:
        Sentences, the main result first.
    """
    board = study.board
    assert board.best is not None, "the caller looked"
    yield Paragraph(text=winner(study, board.best), kind="lead")
    yield from paragraphs([rivals(study, board.best), _gain(study), *_prospects(study), _cost(study)])
    if all(ranked.trial.end.get("diverged") for ranked in board.ranking):
        text = "Every complete trial diverged: its loss was not finite. Lower learning rates may help."
        yield Paragraph(text=text, kind="warning")
    if study.verdict is None and len(board.ranking) > 1:
        yield Paragraph(
            text=f"The value of the best of {len(board.ranking)} single runs is partly chance: a second run will probably be a little worse. "
            f"`hpsearch finalists {study.name}` measures how much.",
            kind="aside",
        )


def no_answer(study: StudyResults) -> str:
    """Return the reason why there is no best trial.

    Args:
        study: the results of a study in which no trial is complete.

    Returns:
        One or two sentences.
    """
    counts, total = study.board.counts, study.board.total
    if total == 0:
        return f"{study.name} has no trials yet: `hpsearch run` trains some."
    if counts["fail"] == total:
        return f"All {total} trials of {study.name} failed. `hpsearch show {study.name} N` prints why trial N failed."
    if counts["pruned"] == total:
        return f"All {total} trials of {study.name} were pruned, so none has a final accuracy. A more patient pruner lets some finish."
    unfinished = counts["running"] + counts["paused"] + counts["waiting"]
    return f"No trial of {study.name} is complete yet: {counts['pruned']} pruned, {counts['fail']} failed, {unfinished} not finished."


def winner(study: StudyResults, best: RankedTrial) -> str:
    """Return the best trial, its accuracy, and its lead over the next trial.

    Args:
        study: the results of the study.
        best: the first trial of the study's leaderboard.

    Returns:
        Two sentences.
    """
    board, (low, high) = study.board, best.interval
    head = (
        f"Best: trial {best.trial.number} ({best.trial.model}) classifies {100 * best.val_accuracy:.2f} % of "
        f"{board.validation_images:,} validation images correctly (95 % interval {100 * low:.2f} to {100 * high:.2f} %)."
    )
    if len(board.ranking) == 1:
        return f"{head} It is the only complete trial."
    other = next((ranked for ranked in board.ranking if ranked.trial.model != best.trial.model), None)
    second = other or board.ranking[1]
    ahead = best.val_accuracy - second.val_accuracy
    name = f"the best {second.trial.model}" if other else f"the next, trial {second.trial.number}"
    sure = "more than chance explains" if ahead > board.margin else "which may be chance"
    return f"{head} It is {100 * ahead:.2f} points ahead of {name}, {sure}."


def rivals(study: StudyResults, best: RankedTrial) -> str:
    """Return how many trials may be as good as the best trial, and which of these trials is the smallest.

    Args:
        study: the results of the study.
        best: the first trial of the study's leaderboard.

    Returns:
        One or two sentences.
    """
    board, count = study.board, len(study.board.unresolved) - 1
    if len(board.ranking) == 1:
        return "There is no other trial to compare it with."
    if not count:
        return f"All other trials are more than {100 * board.margin:.2f} points behind."
    said = f"This search cannot tell the best from {many(count, 'other trial')} within {100 * board.margin:.2f} points"
    smallest, size = board.smallest, best.trial.n_parameters or 0
    if smallest is None or (smallest.trial.n_parameters or 0) >= size:
        return f"{said}. None is smaller."
    fewer = size - (smallest.trial.n_parameters or 0)
    share = f"{100 * fewer / (size or 1):.0f}"
    return (
        f"{said}. The smallest is trial {smallest.trial.number} ({smallest.trial.model}, {100 * smallest.val_accuracy:.2f} %) "
        f"with {smallest.trial.n_parameters or 0:,} parameters, {f'{fewer:,}' if share == '0' else f'{share} %'} fewer."
    )


def _cost(study: StudyResults) -> str:
    board = study.board
    said = f"The search ran {many(board.total, 'trial')} with {show_duration(board.seconds)} of training"
    said += f" in {show_duration(study.row.seconds_spent)}." if study.row.seconds_spent else "."
    if board.saved_seconds:
        share = board.saved_seconds / (board.saved_seconds + board.seconds)
        said += f" Pruning saved about {show_duration(board.saved_seconds)}, {100 * share:.0f} % of the time for all epochs."
    if audit := board.audit:
        low, high = audit.interval
        said += (
            f" The audit trained {many(audit.trials, 'trial')} to the end that would have been stopped: {audit.wrong} of them "
            f"{'is' if audit.wrong == 1 else 'are'} among the best {N_BEST}. So {100 * low:.0f} to {100 * high:.0f} % of the stopped trials "
            "would have been (95 % interval)."
        )
    return said


def _gain(study: StudyResults) -> str:
    gain = study.board.gain
    if gain is None:
        return "The gain over the baseline is unknown: no baseline is complete."
    baseline = gain.baseline
    if baseline == study.board.best:
        return f"Gain over the baseline: none. The baseline (trial {baseline.trial.number}) is the best trial."
    chance = "" if gain.is_significant else " This gain may be chance."
    return (
        f"Gain over the baseline (trial {baseline.trial.number}), a {baseline.trial.model} with {100 * baseline.val_accuracy:.2f} %: "
        f"{100 * gain.difference:+.2f} ± {100 * gain.margin:.2f} points.{chance}"
    )


def _prospects(study: StudyResults) -> Iterator[str]:
    for each in study.board.trailing.values():
        ended = f" The other trials went to {each.leader}." if each.leader_trials > each.trials + 1 else ""
        yield (
            f"{each.model} is clearly behind {each.leader}: the best of its {each.trials} trials has {100 * each.best:.2f} %, and as many "
            f"again would be expected to add {100 * each.gain:.2f} points. The best {each.leader} has {100 * each.leader_best:.2f} %.{ended}"
        )
    if (outlook := study.board.outlook) is not None:
        yield (
            f"As many trials again would be expected to raise the best accuracy by about {100 * outlook.gain:.2f} points, "
            f"{'less' if outlook.is_small else 'more'} than its standard error of {100 * outlook.error:.2f} points."
        )


def comparability(studies: Sequence[StudyResults]) -> Iterator[Block]:
    """Yield the winners of several studies, and the reasons why the studies cannot be compared.

    Args:
        studies: the results of each study.

    Yields:
        A table and sentences.
    """
    cells: Cells[StudyResults] = {
        text_column("study"): lambda study: study.name,
        text_column("winner"): lambda study: f"trial {study.best.number}, {study.best.model}" if study.best else "none",
        number_column("accuracy"): lambda study: percentage(study.best.value if study.best else None),
        text_column("95 % interval"): lambda study: show_interval(study.board.best.interval) if study.board.best else "",
        number_column("parameters"): lambda study: show_count(study.best.n_parameters if study.best else None),
        number_column("gain over its baseline"): lambda study: (
            f"{100 * study.board.gain.difference:+.2f} points" if study.board.gain else ""
        ),
        number_column("trials"): lambda study: show_count(study.board.total),
        number_column("training"): lambda study: show_duration(study.board.seconds),
    }
    yield tabulate("The winner of each study", studies, cells)
    notes = differences(studies)
    if notes:
        yield Paragraph(text="These studies differ in more than their question, so read their differences with care:", kind="warning")
        yield Bullets(items=tuple(notes))
    else:
        yield Paragraph(text="Same images, same split, same seed, same budget: these studies may be compared.")
    yield from _paired(studies)


def differences(studies: Sequence[StudyResults]) -> list[str]:
    """Return the differences between studies. Differences of the search spaces are not listed.

    Args:
        studies: the results of each study.

    Returns:
        A sentence for each difference.
    """
    facts: dict[str, Callable[[StudyResults], Any]] = {
        "data set": lambda study: study.data["dataset"],
        "number of validation images": lambda study: f"{study.data['validation_images']:,}",
        "number of training images": lambda study: f"{study.data['train_images']:,}" if study.data.get("train_images") else "all the rest",
        "split": lambda study: (study.row.split_hash or "none yet")[:12],
        "seed": lambda study: study.row.comparable["seed"],
        "number of trials": lambda study: study.board.total,
        "longest training": lambda study: f"{max((trial.config.epochs for trial in study.trials if trial.config), default=0)} epochs",
        "device": lambda study: ", ".join(sorted({str(trial.run["device"]) for trial in study.trials if "device" in trial.run})) or "none",
        "component files": lambda study: ", ".join(sorted(study.row.comparable["component files"])) or "none",
    }
    found = []
    for what, read in facts.items():
        values = [str(read(study)) for study in studies]
        if len(set(values)) > 1:
            found.append(f"Other {what}: {'; '.join(f'{study.name} has {value}' for study, value in zip(studies, values, strict=True))}.")
    return found


def _paired(studies: Sequence[StudyResults]) -> Iterator[Block]:
    """Yield the difference between the winners of two studies if both were measured on the same images."""
    if len({study.row.split_hash for study in studies}) != 1:
        return
    evaluated = [
        (study, study.evaluated[study.best.model]) for study in studies if study.best is not None and study.best.model in study.evaluated
    ]
    for (one, mine), (two, theirs) in itertools.pairwise(evaluated):
        found = compare(mine.predictions, theirs.predictions)
        low, high = found.interval
        yield Paragraph(
            text=f"On the same images the winner of {one.name} is {100 * found.difference:+.2f} points from that of {two.name}, 95 % interval "
            f"{100 * low:+.2f} to {100 * high:+.2f} (McNemar's exact test: p = {found.p_value:.2g})."
        )
