"""The report of one study, or of several studies side by side. The summary comes first, then the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from hpsearch import __version__
from hpsearch.report.blocks import Block, Page, Paragraph, Part, Section
from hpsearch.report.html import render
from hpsearch.report.sections.model_results import comparison, costs, learning, progress
from hpsearch.report.sections.repeat_results import finalists, helped
from hpsearch.report.sections.run_details import failures, images, repeating, workers
from hpsearch.report.sections.space_results import crossing, importance, where
from hpsearch.report.sections.summary import answer, comparability
from hpsearch.report.study_results import StudyResults
from hpsearch.report.text import trial_counts

Chapter = Callable[[StudyResults], Iterable[Block]]

NONE_COMPLETE = "No trial is complete yet."
CHAPTERS: tuple[tuple[str, str, Chapter, str], ...] = (
    ("answer", "Summary", answer, ""),
    ("helped", "Ablation", helped, ""),
    ("cost", "Accuracy against size", costs, NONE_COMPLETE),
    ("models", "Model comparison", comparison, NONE_COMPLETE),
    ("curves", "Learning curves", learning, "No trial has trained an epoch yet."),
    ("history", "Optimization history", progress, "No trial has a value yet."),
    ("importance", "Hyperparameter importance", importance, NONE_COMPLETE),
    ("values", "Slice plots", where, NONE_COMPLETE),
    ("parallel", "Parallel coordinates", crossing, "Fewer than two different trials are complete: there is nothing to compare."),
    ("workers", "Timeline", workers, "No worker has started a trial yet."),
    ("images", "Misclassified images", images, ""),
    ("finalists", "Finalists", finalists, ""),
    ("failures", "Failed trials", failures, "No trial failed, and none diverged."),
    ("repeat", "How to repeat the study", repeating, ""),
)
"""Anchor, title and function of each section, in order, and the text of the section if the function yields nothing."""


def study_report(studies: Sequence[StudyResults], *, at: datetime) -> str:
    """Return the report of one study, or of several studies side by side.

    Args:
        studies: the results of each study.
        at: the time that the page shows as its date.

    Returns:
        The HTML page.
    """
    several = len(studies) > 1
    sections = [
        Section(
            name=name,
            title=title,
            parts=tuple(
                Part(blocks=tuple(chapter(study)) or (Paragraph(text=empty),), title=study.name if several else "") for study in studies
            ),
        )
        for name, title, chapter, empty in CHAPTERS
    ]
    if several:
        sections.insert(0, Section(name="studies", title="The studies side by side", parts=(Part(blocks=tuple(comparability(studies))),)))
    return render(
        Page(
            title=" and ".join(study.name for study in studies),
            subtitle="; ".join(_subtitle(study) for study in studies),
            sections=tuple(sections),
            footer=f"Written by hpsearch {__version__} on {at:%d %B %Y, %H:%M}. This page loads nothing from the network.",
        )
    )


def _subtitle(study: StudyResults) -> str:
    return f"{' and '.join(study.models) or 'no model'} on {study.data['dataset']}, {trial_counts(study.board)}"
