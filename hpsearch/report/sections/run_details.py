"""The last sections of a report: timeline, images, failed trials, and how to repeat the study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hpsearch.formatting import many, show_duration
from hpsearch.report.blocks import Block, Chart, Code, Paragraph, Picture, Table, number_column, prose_column, text_column
from hpsearch.report.figures import search_figures as figures
from hpsearch.report.study_results import StudyResults

MOST_FAILURES = 50
"""Maximum number of rows in the table of failed trials."""


def workers(study: StudyResults) -> Iterator[Block]:
    """Yield the timeline of the workers.

    Args:
        study: the results of the study.

    Yields:
        A chart with a bar for each attempt at a trial; nothing if no trial was attempted.
    """
    attempts = [(str(attempt["worker"]), trial) for trial in study.trials for attempt in trial.attempts]
    if not attempts:
        return
    names = {worker for worker, _ in attempts}
    again = sum("paused_at" not in attempt for trial in study.trials for attempt in trial.attempts[:-1])
    said = f"{many(len(names), 'worker')}, {show_duration(study.board.seconds)} of training"
    said += f"; trials were interrupted and continued {again} times." if again else "; no trial was interrupted."
    counted = Counter(worker for worker, _ in attempts)
    yield Chart(
        title="Timeline of the workers",
        figure=figures.timeline(study.trials),
        says=f"{said} Pale bars are attempts that did not complete a trial: they were pruned, failed or interrupted.",
        table=Table(
            caption="Attempts of each worker",
            columns=(text_column("worker"), number_column("attempts")),
            rows=tuple((worker, str(count)) for worker, count in counted.items()),
        ),
    )


def images(study: StudyResults) -> Iterator[Block]:
    """Yield training images and misclassified validation images.

    The misclassified images are those with the highest confidence of the best trial.

    Args:
        study: the results of the study.

    Yields:
        Pictures with sentences.
    """
    if study.samples is not None:
        yield Picture(
            png=study.samples,
            alternative=f"Training images of {study.data['dataset']} with the names of their classes",
            caption="Training images, drawn at random",
        )
    else:
        yield Paragraph(
            text="There is no picture of the training images: workers write one into the study's folder when they start.", kind="aside"
        )
    if study.best is None:
        yield Paragraph(text="No trial is complete yet, so there are no mistakes to show.")
    elif study.misclassified is None:
        yield Paragraph(
            text=f"The predictions of trial {study.best.number} are missing or no finite numbers: its mistakes cannot be shown.",
            kind="aside",
        )
    elif not study.misclassified.pictures:
        yield Paragraph(text=f"Trial {study.best.number} makes no mistake on the validation images.")
    else:
        yield Paragraph(
            text=f"The most confident mistakes of trial {study.best.number} ({study.best.model}) on the validation images: true class, predicted class and confidence."
        )
        yield study.misclassified


def failures(study: StudyResults) -> Iterator[Block]:
    """Yield the failed trials with their reasons, and the diverged trials.

    Args:
        study: the results of the study.

    Yields:
        A table of the failed trials, and a sentence about the diverged trials, if there are such trials.
    """
    failed = [trial for trial in study.trials if trial.state == "fail"]
    diverged = [trial.number for trial in study.trials if trial.end.get("diverged")]
    if failed:
        rows = tuple(
            (str(trial.number), trial.model, str(len(trial.epochs)), str(trial.end.get("reason", "ended from outside")))
            for trial in failed[:MOST_FAILURES]
        )
        more = f"; the first {MOST_FAILURES} of {len(failed)}" if len(failed) > MOST_FAILURES else ""
        yield Table(
            caption=f"Failed trials{more}. `hpsearch run {study.name} --retry-failed` tries them again",
            columns=(number_column("trial"), text_column("model"), number_column("epochs"), prose_column("reason")),
            rows=rows,
        )
    if diverged:
        yield Paragraph(
            text=f"{many(len(diverged), 'trial')} had a loss that was not finite: {', '.join(map(str, diverged[:MOST_FAILURES]))}."
        )


def repeating(study: StudyResults) -> Iterator[Block]:
    """Yield what a reader needs to repeat the study.

    Args:
        study: the results of the study.

    Yields:
        The commands, the versions and the study file.
    """
    name = study.row.path.name
    best = study.best
    commands = [f"hpsearch run {name}"]
    if best is not None:
        commands += [f"hpsearch finalists {study.name}"] if study.verdict is not None else []
        commands += [f"hpsearch explain {study.name}"] if study.explanation is not None else []
        commands += [f"hpsearch export {study.name} -o best.toml", "hpsearch train best.toml", "hpsearch train best.toml --final"]
    yield Code(text="\n".join(commands), label="The commands")
    made: Counter[tuple[str, str]] = Counter()
    for trial in study.trials:
        if trial.run:
            versions = ", ".join(f"{package} {number}" for package, number in trial.run.get("versions", {}).items())
            place = f"on {trial.run.get('device', '')}" + ("" if trial.config is None else f" in {trial.config.precision}")
            made[versions, place] += 1
    for (versions, place), count in made.most_common():
        yield Paragraph(text=f"{many(count, 'trial')} {place} with {versions or 'unknown versions'}.", kind="aside")
    yield Paragraph(text=f"Split {study.row.split_hash or 'not drawn yet'}, seed {study.row.comparable['seed']}.", kind="aside")
    yield Code(text=study.row.text, label=f"The study file, {name}")
