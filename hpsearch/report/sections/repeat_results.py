"""The evidence of a report on what was run again: the finalists, and what helped on the way to the winner."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.analysis.finalists import Finalist, FinalistsResult
from hpsearch.formatting import str_of
from hpsearch.report.figures import repeat_figures as figures_of_repeats
from hpsearch.report.html import Block, Bullets, Chart, Paragraph, Table
from hpsearch.report.study_results import StudyResults
from hpsearch.report.text import explanation_reading, points, step_verdict, verdict_reading


def helped(study: StudyResults) -> Iterator[Block]:
    """The way from the baseline to the winner, one change at a time."""
    if study.explanation is None:
        yield Paragraph(
            text=f"Nobody has looked yet: `hpsearch explain {study.name}` changes one parameter at a time, from the baseline to the winner."
        )
        return
    explanation, trial = study.explanation
    rows = tuple(
        (
            str(number),
            step.parameter or "the baseline",
            step.change,
            "" if step.mean is None else f"{100 * step.mean.value:.2f} %",
            "" if step.gain is None else points(step.gain),
            step_verdict(step),
            ", ".join(f"{name} = {str_of(value)}" for name, value in step.settings.items()),
        )
        for number, step in enumerate(explanation.steps)
    )
    headings = ("step", "parameter", "change", "accuracy", "gain", "", "brought along")
    sides = ("right", "left", "left", "right", "left", "left", "left")
    table = Table(caption="The steps", columns=dict(zip(headings, sides, strict=True)), rows=rows)
    for line in explanation_reading(explanation):
        yield Paragraph(text=line)
    if any(step.gain is not None for step in explanation.steps):
        yield Chart(
            title=f"From the baseline to trial {trial}, one change at a time",
            figure=figures_of_repeats.way(explanation),
            says=f"Each step was trained with {explanation.seeds} fresh seeds; whiskers hold 95 %. Grey ones make no difference that the seeds can show.",
            table=table,
        )
    else:
        yield table


def finalists(study: StudyResults) -> Iterator[Block]:
    """The best few again, with fresh seeds and splits."""
    verdict = study.verdict
    if verdict is None or not verdict.finalists:
        yield Paragraph(
            text=f"None were run: `hpsearch finalists {study.name}` trains the best few again with fresh seeds, and says how sure the winner is."
        )
        return
    yield Bullets(items=tuple(verdict_reading(verdict)))
    headings = (
        "finalist",
        "model",
        "verdict",
        "accuracy",
        "95 % interval",
        "± seeds",
        "best with probability",
        "behind the winner",
        "in the search",
        "search − mean",
        "runs",
        "parameters",
    )
    # What was found out comes first: the table is wider than most screens.
    sides = ("left", "left", "left", "right", "left", "right", "right", "left", "right", "right", "right", "right")
    table = Table(
        caption=f"The finalists, up to {verdict.seeds} seeds each",
        columns=dict(zip(headings, sides, strict=True)),
        rows=tuple(_row(each, verdict) for each in verdict.finalists),
    )
    yield Chart(
        title="The finalists on fresh seeds and splits",
        figure=figures_of_repeats.finalists(verdict),
        says="Large points are means with their 95 % interval, small ones single seeds.",
    )
    yield table


def _row(each: Finalist, verdict: FinalistsResult) -> tuple[str, ...]:
    candidate = each.candidate
    low, high = each.mean.interval
    wins = verdict.winner is not None and candidate.name == verdict.winner.candidate.name
    notes = (
        "winner" if wins else "tied" if each.is_tied else "",
        "baseline" if candidate.is_baseline else "",
        f"clearly behind after {each.dropped_after}" if each.dropped_after else "",
    )
    return (
        candidate.name,
        candidate.model,
        ", ".join(note for note in notes if note),
        f"{100 * each.mean.value:.2f} %",
        f"{100 * low:.2f} to {100 * high:.2f}",
        "" if each.deviation is None else f"{100 * each.deviation:.2f}",
        f"{each.best:.2f}",
        "" if each.behind is None else points(each.behind),
        "" if candidate.value is None else f"{100 * candidate.value:.2f} %",
        "" if each.optimism is None else f"{100 * each.optimism:+.2f}",
        str(len(each.scores)),
        "" if candidate.n_parameters is None else f"{candidate.n_parameters:,}",
    )
