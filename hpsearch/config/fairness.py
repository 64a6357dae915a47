"""Options that a study does not search: their defaults, and the unfair comparisons that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpsearch.config.components import SELECTORS, TRAINER_OPTIONS, Scalar
from hpsearch.config.distributions import Fixed
from hpsearch.config.space import Parameter, Space


def unsearched_defaults(space: Space) -> Mapping[str, Mapping[str, Scalar]]:
    """Return the options that the space does not mention.

    Args:
        space: the search space.

    Returns:
        Option names to defaults, by owner (`the trainer`, `cnn`, …).
    """
    found: dict[str, dict[str, Scalar]] = {}
    mentioned = {parameter.option for parameter in space if parameter.owner == "trainer"}
    found["the trainer"] = {option.name: option.default for option in TRAINER_OPTIONS if option.name not in mentioned}
    for kind in SELECTORS:
        for name in space.names_of(kind):
            set_here = {parameter.option for parameter in space if parameter.owner == kind and _can_meet(space, parameter, kind, name)}
            found[name] = {option.name: option.default for option in space.catalog.get(kind, name).options if option.name not in set_here}
    return {owner: options for owner, options in found.items() if options}


def unfair_comparisons(space: Space) -> tuple[str, ...]:
    """Return a warning for each option that is searched for one component but not for another of the same kind.

    Args:
        space: the search space.

    Returns:
        Warnings, each a sentence.
    """
    return tuple(_unfair(space))


def _unfair(space: Space) -> Iterator[str]:
    for kind in SELECTORS:
        names = space.names_of(kind)
        if len(names) < 2:
            continue
        for option in sorted({parameter.option for parameter in space.searched if parameter.owner == kind}):
            takers = [name for name in names if space.catalog.get(kind, name).option(option)]
            searched = [name for name in takers if _is_searched(space, kind, name, option)]
            fixed = [name for name in takers if name not in searched]
            if searched and fixed:
                yield (
                    f"`{option}` is searched for {' and '.join(searched)}, but fixed for {' and '.join(fixed)}: "
                    f"that compares a tuned {kind} with an untuned one."
                )


def _is_searched(space: Space, kind: str, name: str, option: str) -> bool:
    return any(
        parameter.owner == kind
        and parameter.option == option
        and not isinstance(parameter.distribution, Fixed)
        and _can_meet(space, parameter, kind, name)
        for parameter in space
    )


def _can_meet(space: Space, parameter: Parameter, kind: str, name: str) -> bool:
    """Return whether the parameter can exist together with that component, by its own conditions."""
    return name in parameter.when.get(kind, (name,)) and all(
        _can_meet(space, space[parent], kind, name) for parent in parameter.when if parent not in SELECTORS
    )
