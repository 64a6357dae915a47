"""Finds options that a study does not search, and comparisons that are unfair because of this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpsearch.config.components import SELECTORS, TRAINER_OPTIONS, Scalar
from hpsearch.config.distributions import Fixed
from hpsearch.config.space import Parameter, Space


def unsearched_defaults(space: Space) -> Mapping[str, Mapping[str, Scalar]]:
    """Return the options that the space does not mention, with their defaults.

    Args:
        space: the search space.

    Returns:
        For each owner (`the trainer`, `cnn`, …), the names of options with their defaults.
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
    """Warn about options that are searched for one component but fixed for another component of the same kind.

    Args:
        space: the search space.

    Returns:
        One sentence for each such option.
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
    """Return whether the conditions allow the parameter in a trial that chooses the component `name` of `kind`."""
    return name in parameter.when.get(kind, (name,)) and all(
        _can_meet(space, space[parent], kind, name) for parent in parameter.when if parent not in SELECTORS
    )
