"""The sections on the search space: hyperparameter importance, slice plots, parallel coordinates."""

from __future__ import annotations

from collections.abc import Iterator

from hpsearch.analysis.importance import FEWEST_TRIALS, design_of
from hpsearch.analysis.leaderboard import rank
from hpsearch.config.components import Scalar
from hpsearch.config.distributions import Choices, Fixed, FloatRange, IntRange
from hpsearch.formatting import str_of
from hpsearch.report.blocks import Block, Bullets, Chart, Paragraph, Table, number_column, text_column
from hpsearch.report.figures import space_figures as figures_of_space
from hpsearch.report.figures.search_figures import models_of
from hpsearch.report.figures.space_figures import position
from hpsearch.report.study_results import StudyResults
from hpsearch.storage.records import TrialRow

SLICES = 4
"""Maximum number of slice plots. The most important parameters are shown."""
NOT_SEARCHED = Fixed(value="")
NEAR_A_BOUND = 0.03
"""A value is near an end of its range if the distance is at most this share of the range.

The share is measured on the scale of the range, linear or logarithmic. Better values may lie beyond such an end.
"""


def importance(study: StudyResults) -> Iterator[Block]:
    """Yield the hyperparameter importance for each model.

    Args:
        study: the results of the study.

    Yields:
        A chart, and sentences that say how reliable the importances are.
    """
    found = study.importances
    for model in models_of(study.trials):
        count = len(rank(study.trials, model))
        if count < FEWEST_TRIALS:
            yield Paragraph(text=f"{model} has {count} complete trials; importances are computed from {FEWEST_TRIALS} on.", kind="aside")
    if not found:
        return
    for one in found:
        if one.doubt:
            yield Paragraph(text=one.doubt, kind="warning")
    leaders = "; ".join(f"{one.model}: {', '.join(each.name for each in one.parameters[:3])}" for one in found)
    rows = tuple(
        (one.model, each.name, f"{each.share:.3f}", f"{each.interval[0]:.3f} to {each.interval[1]:.3f}")
        for one in found
        for each in one.parameters
    )
    yield Chart(
        title="Hyperparameter importance, by model",
        figure=figures_of_space.importances(found),
        says=f"Most important first: {leaders}. The whiskers hold 90 % of the resamples.",
        table=Table(
            caption="Importances",
            columns=(text_column("model"), text_column("parameter"), number_column("share"), text_column("90 % interval")),
            rows=rows,
        ),
    )
    explained = ", ".join(f"{100 * max(0.0, one.explained):.0f} % for {one.model} ({one.trials} trials)" for one in found)
    yield Paragraph(
        text="Permutation importance of a random forest over the complete trials: the loss in its ranking of unseen trials when one "
        f"parameter is shuffled. The forest explains {explained} of that ranking.",
        kind="aside",
    )


def where(study: StudyResults) -> Iterator[Block]:
    """Yield slice plots and contour plots of the important parameters, and the best values at an end of their range.

    Args:
        study: the results of the study.

    Yields:
        Charts and sentences; nothing if no trial is complete.
    """
    if not rank(study.trials):
        return
    flags = [
        flag for model in models_of(study.trials) for trial in rank(study.trials, model)[:1] for flag in on_a_bound(trial, study.space)
    ]
    if flags:
        yield Paragraph(text="Some best values lie at an end of their range. Better values may lie outside the range.", kind="warning")
        yield Bullets(items=tuple(flags))
    shown = _important(study)
    if not shown:
        yield Paragraph(text="No parameter has more than one value among the complete trials: there is nothing to compare.")
    for name in shown:
        yield Chart(
            title=name,
            figure=figures_of_space.slice_of(study.trials, name, study.space),
            says=_best_values(study, name),
            narrow=True,
        )
    for one in study.importances:
        design = design_of(study.trials, one.model)
        best = rank(study.trials, one.model)[0]
        pair = [each.name for each in one.parameters if each.name in best.params and each.name in design.names][:2]
        if len(pair) == 2:
            yield Chart(
                title=f"{one.model}: {pair[0]} and {pair[1]}",
                figure=figures_of_space.contour(study.trials, one.model, pair[0], pair[1], study.space),
                says=f"The accuracy that a random forest over {one.trials} trials expects, with all other parameters as in trial {best.number} (the star).",
                narrow=True,
            )


def _important(study: StudyResults) -> list[str]:
    """Return the names of the most important parameters.

    If no importance is known, parameters with a range come before parameters with a list of choices.
    """
    found = study.importances
    if found:
        shares: dict[str, float] = {}
        for each in (each for one in found for each in one.parameters):
            shares[each.name] = max(shares.get(each.name, 0.0), each.share)
        return sorted(shares, key=lambda name: -shares[name])[:SLICES]
    known = [name for name in searched(study) if name != "model"]
    return sorted(known, key=lambda name: isinstance(study.space[name], Choices))[:SLICES]


def searched(study: StudyResults) -> list[str]:
    """Return the parameters with more than one value among the complete trials.

    Args:
        study: the results of the study.

    Returns:
        The names. Parameters that every trial has come first.
    """
    complete = rank(study.trials)
    names = dict.fromkeys(name for trial in complete for name in trial.params if not isinstance(study.space.get(name, NOT_SEARCHED), Fixed))
    return sorted((name for name in names if len({trial.params.get(name) for trial in complete}) > 1), key=lambda name: "." in name)


def _best_values(study: StudyResults, name: str) -> str:
    parts = []
    for model in models_of(study.trials):
        best = next((trial for trial in rank(study.trials, model) if name in trial.params), None)
        if best is not None:
            parts.append(f"{_short(best.params[name])} in the best {model}")
    return f"{name} is {' and '.join(parts)}."


def on_a_bound(trial: TrialRow, space: figures_of_space.Distributions) -> list[str]:
    """Return the parameters of a trial whose value lies at an end of the range.

    Args:
        trial: the best trial of a model.
        space: the distribution of each parameter, by name.

    Returns:
        A sentence for each such parameter.
    """
    found = []
    for name, value in trial.params.items():
        distribution = space.get(name)
        if not isinstance(distribution, FloatRange | IntRange) or distribution.low == distribution.high:
            continue
        share = position(value, distribution)
        end = "lower" if share <= NEAR_A_BOUND else "upper" if share >= 1 - NEAR_A_BOUND else ""
        if end:
            found.append(
                f"{name} = {_short(value)} of the best {trial.model} (trial {trial.number}) lies at the {end} end "
                f"of {distribution.low:g} to {distribution.high:g}."
            )
    return found


def _short(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str_of(value)


def crossing(study: StudyResults) -> Iterator[Block]:
    """Yield the plot of parallel coordinates.

    Args:
        study: the results of the study.

    Yields:
        A chart; nothing if the complete trials do not differ.
    """
    complete = rank(study.trials)
    names = searched(study)
    if not names:
        return
    yield Chart(
        title="Each trial as a line across its parameters",
        figure=figures_of_space.parallel(study.trials, study.space, names),
        says=f"The best ten of each model in colour, the rest of {len(complete)} complete trials grey; a line has a gap where a parameter does not exist.",
    )
