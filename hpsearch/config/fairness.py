"""Finds options that a study does not search, and comparisons that are unfair because of this."""

from __future__ import annotations

from collections.abc import Mapping

from hpsearch.config.components import SELECTORS, TRAINER, Component, Scalar
from hpsearch.config.space import Parameter, Space


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


def _options(space: Space, parameters: tuple[Parameter, ...], component: Component) -> set[str]:
    """Return the options of a component that some of the parameters can set."""
    return {each.option for each in parameters if each.owner == component.kind and _can_meet(space, each, component)}


def _can_meet(space: Space, parameter: Parameter, component: Component) -> bool:
    """Return whether the conditions allow the parameter in a trial that chooses the component."""
    return component.name in parameter.when.get(component.kind, (component.name,)) and all(
        _can_meet(space, space[parent], component) for parent in parameter.when if parent not in SELECTORS
    )
