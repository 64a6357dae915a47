"""Finds settings of a study that spoil its result: unfair comparisons, a pruner without effect, a space smaller than the budget."""

from __future__ import annotations

from collections.abc import Mapping

from hpsearch.config.components import SELECTORS, TRAINER, Component, Scalar
from hpsearch.config.sections import MIN_TRIALS, MIN_TRIALS_OF_MODEL, Budget
from hpsearch.config.space import EPOCHS, Parameter, Space
from hpsearch.config.study_file import StudyFile
from hpsearch.formatting import many


def unsearched_defaults(space: Space) -> Mapping[str, Mapping[str, Scalar]]:
    """Return the options that the space does not mention, with their defaults.

    Args:
        space: the search space.

    Returns:
        For each owner (`the trainer`, `cnn`, …), the names of options with their defaults.
    """
    components = [TRAINER, *(space.catalog.get(kind, name) for kind in SELECTORS for name in space.names_of(kind))]
    found: dict[str, dict[str, Scalar]] = {}
    for component in components:
        mentioned = _options(space, space.parameters, component)
        found[component.name] = {option.name: option.default for option in component.options if option.name not in mentioned}
    return {owner: options for owner, options in found.items() if options}


def unfair_comparisons(space: Space) -> tuple[str, ...]:
    """Warn about options that are searched for one component but fixed for another component of the same kind.

    Args:
        space: the search space.

    Returns:
        One sentence for each such option.
    """
    found = []
    for kind in SELECTORS:
        components = [space.catalog.get(kind, name) for name in space.names_of(kind)]
        for option in sorted({parameter.option for parameter in space.searched if parameter.owner == kind}):
            takers = [component for component in components if component.option(option)]
            searched = [component.name for component in takers if option in _options(space, space.searched, component)]
            fixed = [component.name for component in takers if component.name not in searched]
            if searched and fixed:
                found.append(
                    f"`{option}` is searched for {' and '.join(searched)}, but fixed for {' and '.join(fixed)}: "
                    f"that compares a tuned {kind} with an untuned one."
                )
    return tuple(found)


def wasted_settings(study: StudyFile, budget: Budget) -> tuple[str, ...]:
    """Warn about a pruner that cannot prune or prunes the wrong trials, and about trials that must repeat other trials.

    Args:
        study: the study file.
        budget: the budget of this run.

    Returns:
        One sentence for each.
    """
    found = []
    pruner, longest = study.pruner, study.space.max_epochs
    # A trial is never pruned in its last epoch. A pruner that the file does not mention needs no warning.
    key, first = ("min_epochs", pruner.min_epochs) if pruner.min_epochs else ("warmup_epochs", (pruner.warmup_epochs or 0) + 1)
    waits = max(pruner.startup_trials or 0, pruner.min_trials or 0)
    # asha compares trials inside their first epoch already.
    if pruner.model_fields_set and pruner.kind not in ("none", "asha") and first >= longest:
        found.append(
            f"the pruner never prunes: with this `{key}` it can first prune after {many(first, 'epoch')}, "
            f"but the longest training ends after {many(longest, 'epoch')}."
        )
    elif pruner.model_fields_set and waits >= budget.max_trials:
        found.append(f"the pruner never prunes: it waits for {many(waits, 'complete trial')}, but the budget is {budget.amount}.")
    differ = any(len(study.space.possible_values(EPOCHS, model)) > 1 for model in study.space.names_of("model"))
    falling = [name for name in study.space.names_of("schedule") if name != "constant"]
    if pruner.kind in ("halving", "hyperband") and differ and falling:
        found.append(
            f"{pruner.kind} compares trials after equal epochs, but `epochs` differs between trials and the learning rate falls "
            f"({', '.join(falling)}): long trainings are pruned before they show what they can. "
            'kind = "median" compares at equal shares of the epochs.'
        )
    models = len(study.space.names_of("model"))
    for setting, is_set, needed in (
        ("stop", budget.stop is not None, MIN_TRIALS),
        ("balance", budget.balance == "until_behind", MIN_TRIALS_OF_MODEL * models),
    ):
        # Trials that asha pauses inside their first epoch make the number of trials unknown.
        most = budget.trials if pruner.kind == "asha" else budget.max_trials
        if is_set and most is not None and most <= needed:
            found.append(f"`{setting}` ends nothing: it acts after {needed} trials at the earliest, but the budget is {budget.amount}.")
    trials = budget.min_trials(longest)
    points = study.space.count_points(trials)
    if points < trials:
        found.append(
            f"the space has only {many(int(points), 'different point')}, but the budget is {budget.amount}: "
            "the same configurations are trained again, with other seeds."
        )
    return tuple(found)


def _options(space: Space, parameters: tuple[Parameter, ...], component: Component) -> set[str]:
    """Return the options of a component that some of the parameters can set."""
    return {each.option for each in parameters if each.owner == component.kind and _can_meet(space, each, component)}


def _can_meet(space: Space, parameter: Parameter, component: Component) -> bool:
    """Return whether the conditions allow the parameter in a trial that chooses the component."""
    return component.name in parameter.when.get(component.kind, (component.name,)) and all(
        _can_meet(space, space[parent], component) for parent in parameter.when if parent not in SELECTORS
    )
