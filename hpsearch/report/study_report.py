"""The report of one study or several, side by side: first the answer, then the evidence, in a reader's order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from hpsearch import __version__
from hpsearch.report.blocks import Block, Page, Part, Section
from hpsearch.report.html import render
from hpsearch.report.sections.model_results import comparison, costs, learning, progress
from hpsearch.report.sections.repeat_results import finalists, helped
from hpsearch.report.sections.run_details import failures, images, repeating, workers
from hpsearch.report.sections.space_results import crossing, importance, where
from hpsearch.report.sections.summary import answer, comparability
from hpsearch.report.study_results import StudyResults
from hpsearch.report.text import trial_counts

Chapter = Callable[[StudyResults], Iterable[Block]]

CHAPTERS: tuple[tuple[str, str, Chapter], ...] = (
    ("answer", "The answer", answer),
    ("helped", "What helped", helped),
    ("cost", "What accuracy costs", costs),
    ("models", "Model against model", comparison),
    ("curves", "Learning curves", learning),
    ("history", "How the search went", progress),
    ("importance", "Which parameters matter", importance),
    ("values", "Where the good values lie", where),
    ("parallel", "What goes with what", crossing),
    ("workers", "Who trained what when", workers),
    ("images", "What the network sees, and where it errs", images),
    ("finalists", "The finalists", finalists),
    ("failures", "What went wrong", failures),
    ("repeat", "How to repeat it", repeating),
)
"""Anchor, title and writer of each section, in order."""


def study_report(studies: Sequence[StudyResults], *, at: datetime) -> str:
    """The report as one file of HTML.

    Args:
        at: when it is written.
    """
    several = len(studies) > 1
    sections = [
        Section(
            name=name,
            title=title,
            parts=tuple(Part(blocks=tuple(chapter(study)), title=study.name if several else "") for study in studies),
        )
        for name, title, chapter in CHAPTERS
    ]
    if several:
        sections.insert(0, Section(name="studies", title="The studies side by side", parts=(Part(blocks=tuple(comparability(studies))),)))
    return render(
        Page(
            title=" and ".join(study.name for study in studies),
            subtitle="; ".join(_subtitle(study) for study in studies),
            sections=tuple(sections),
            footer=f"Written by hpsearch {__version__} on {at:%d %B %Y, %H:%M}. This page stands alone: it loads nothing from the network.",
        )
    )


def _subtitle(study: StudyResults) -> str:
    return f"{' and '.join(study.models) or 'no model'} on {study.data['dataset']}, {trial_counts(study.board)}"
