"""The sections on repeated runs: the finalists and the ablation."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.formatting import many
from hpsearch.report.blocks import Block, Bullets, Chart, Paragraph, paragraphs
from hpsearch.report.figures import repeat_figures as figures_of_repeats
from hpsearch.report.study_results import StudyResults
from hpsearch.report.text import explanation_reading, finalists_table, steps_table, verdict_reading


def helped(study: StudyResults) -> Iterator[Block]:
    """Yield the ablation, which is the list of steps from the baseline to the winner.

    Args:
        study: the results of the study.

    Yields:
        Sentences, a chart and a table.
    """
    if study.explanation is None:
        yield Paragraph(
            text=f"No ablation has run. `hpsearch explain {study.name}` changes one parameter at a time, from the baseline to the winner."
        )
        return
    explanation, trial = study.explanation
    table = steps_table(explanation, trial)
    yield from paragraphs(explanation_reading(explanation))
    if any(step.gain is not None for step in explanation.steps):
        yield Chart(
            title=f"From the baseline to trial {trial}, one change at a time",
            figure=figures_of_repeats.ablation(explanation),
            says=f"Each step was trained with {many(explanation.seeds, 'fresh seed')}; whiskers are 95 % intervals. Grey steps make no difference that these seeds can show.",
            table=table,
        )
    else:
        yield table


def finalists(study: StudyResults) -> Iterator[Block]:
    """Yield the results of the finalists. Each finalist was trained with new seeds and splits.

    Args:
        study: the results of the study.

    Yields:
        Sentences, a chart and a table.
    """
    verdict = study.verdict
    if verdict is None or not verdict.finalists:
        yield Paragraph(
            text=f"No finalist has run. `hpsearch finalists {study.name}` trains the best few again with fresh seeds and measures how certain the winner is."
        )
        return
    yield Bullets(items=tuple(verdict_reading(verdict)))
    yield Chart(
        title="The finalists on fresh seeds and splits",
        figure=figures_of_repeats.finalists(verdict),
        says="Large points are means with their 95 % interval, small ones single seeds.",
    )
    yield finalists_table(verdict)
