"""Random valid `[space]` tables, the same table written otherwise, and tables that differ in one thing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from hpsearch.config.components import BUILT_IN, SELECTORS, TRAINER_OPTIONS, Option

Table = dict[str, Any]
STEP = 1000
"""Floats are drawn as thousandths, which every option between 0 and 1 allows."""


@st.composite
def distributions(draw: st.DrawFn, option: Option) -> Any:
    """What a study file may write for an option: a value, choices or a range."""
    if isinstance(option.default, bool):
        return draw(st.sampled_from([True, False, {"choices": [True, False]}, {"choices": [True]}]))
    if isinstance(option.default, str):
        names = draw(st.lists(st.sampled_from(option.choices or ()), min_size=1, unique=True))
        return draw(st.sampled_from([names[0], {"choices": names}]))
    whole = isinstance(option.default, int)
    lowest = int(option.low or 0) if whole else 1
    highest = min(int(option.high or STEP), lowest + 60) if whole else STEP - 1
    write = (lambda number: number) if whole else (lambda number: number / STEP)
    numbers = draw(st.lists(st.integers(lowest, highest), min_size=2, max_size=5, unique=True))
    low, high = sorted(numbers[:2])
    step = draw(st.integers(1, high - low))
    kind = "int" if whole else "float"
    ways = [
        write(low),
        {"choices": [write(number) for number in numbers]},
        {kind: [write(low), write(high)]},
        {kind: [write(low), write(low + (high - low) // step * step)], "step": write(step)},
    ]
    if low > 0:
        ways.append({kind: [write(low), write(high)], "log": True})
    return draw(st.sampled_from(ways))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A `[space]`: selectors, settings of the trainer, tables of components, tables with conditions."""
    table: Table = {}
    chosen: dict[str, list[str]] = {}
    for kind in SELECTORS:
        names = draw(st.lists(st.sampled_from(BUILT_IN.names(kind)), min_size=1, unique=True))
        way = draw(st.sampled_from(["choices", "choices", "fixed", "default"]))
        if way == "choices":
            table[kind] = {"choices": names}
        elif way == "fixed":
            table[kind] = names[0]
        chosen[kind] = names if way == "choices" else names[:1] if way == "fixed" else []
    free = list(TRAINER_OPTIONS)
    for option in TRAINER_OPTIONS:
        if draw(st.booleans()):
            table[option.name] = draw(distributions(option))
            free.remove(option)
    for kind, names in chosen.items():
        shared = set.intersection(*({option.name for option in BUILT_IN.get(kind, name).options} for name in names)) if names else set()
        # One option goes to a labelled table for some of the components, the others to each component's own.
        labelled = draw(st.sampled_from(sorted(shared))) if shared and len(names) > 1 and draw(st.booleans()) else ""
        if labelled:
            some = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
            option = BUILT_IN.get(kind, some[0]).option(labelled)
            assert option is not None
            table[f"some_{kind}"] = {"when": {kind: some}, labelled: draw(distributions(option))}
        for name in names:
            options = [option for option in BUILT_IN.get(kind, name).options if option.name != labelled and draw(st.booleans())]
            if options:
                table[name] = {option.name: draw(distributions(option)) for option in options}
    # A condition on any parameter that has choices, conditional itself or not.
    parents = [(name, entry["choices"]) for name, entry in _parameters(table) if isinstance(entry, dict) and "choices" in entry]
    if parents and free:
        parent, values = draw(st.sampled_from(parents))
        some = draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
        option = draw(st.sampled_from(free))
        table["deeper"] = {"when": {parent: draw(st.sampled_from([some, some[0]]))}, option.name: draw(distributions(option))}
    return table


def rewritten(table: Table, draw: st.DrawFn) -> Table:
    """The same space with its keys, choices and conditions in another order."""
    result: Table = {}
    for key in draw(st.permutations(list(table))):
        value = table[key]
        if isinstance(value, dict):
            result[key] = rewritten(value, draw)
        elif isinstance(value, list) and key not in ("float", "int"):
            result[key] = draw(st.permutations(value))
        else:
            result[key] = value
    return result


def changed(table: Table) -> Iterator[tuple[str, Table]]:
    """Tables in which one thing is another; some make no valid space."""
    for name, _ in _parameters(table):
        for what in ("drop", "fix", "low", "high", "step", "log", "drop choice", "kind"):
            other = copy.deepcopy(table)
            group, _, key = name.rpartition(".")
            holder = other[group] if group else other
            if _change(holder, key, what):
                yield f"{what} {name}", other
    for label, group in table.items():
        for parent, values in group.get("when", {}).items() if isinstance(group, dict) else ():
            if isinstance(values, list) and len(values) > 1:
                other = copy.deepcopy(table)
                other[label]["when"][parent] = values[1:]
                yield f"condition {label}", other
            other = copy.deepcopy(table)
            other[f"{label}2"] = other.pop(label)
            yield f"label {label}", other


def _change(holder: Table, key: str, what: str) -> bool:
    entry = holder[key]
    kind = next((kind for kind in ("float", "int") if isinstance(entry, dict) and kind in entry), None)
    if what == "drop":
        del holder[key]
    elif what == "fix" and isinstance(entry, dict):
        holder[key] = entry["choices"][0] if "choices" in entry else entry[kind][0]
    elif what == "drop choice" and isinstance(entry, dict) and len(entry.get("choices", [])) > 1:
        entry["choices"] = entry["choices"][1:]
    elif what == "kind" and not isinstance(entry, dict):
        holder[key] = {"choices": [entry]}
    elif what in ("low", "high") and kind:
        width = entry.get("step", 1 if kind == "int" else 1 / STEP)
        entry[kind] = [entry[kind][0] + width, entry[kind][1]] if what == "low" else [entry[kind][0], entry[kind][1] + width]
    elif what == "step" and kind and "step" in entry and entry[kind][0] < entry[kind][1]:
        entry["step"] = entry["step"] / 2 if kind == "float" else entry["step"] * 2
    elif what == "log" and kind and "step" not in entry:
        entry["log"] = not entry.get("log", False)
    else:
        return False
    return True


def _parameters(table: Table) -> Iterator[tuple[str, Any]]:
    for key, entry in table.items():
        if isinstance(entry, dict) and not {"float", "int", "choices"} & entry.keys():
            yield from ((f"{key}.{name}", inner) for name, inner in entry.items() if name != "when")
        else:
            yield key, entry


def entries(table: Table) -> dict[str, Any]:
    """What the table writes for each parameter, by its whole name."""
    return dict(_parameters(table))


def conditions(table: Table, name: str) -> dict[str, list[Any]]:
    """The conditions that the table sets on a parameter, itself and not its parents."""
    group = name.rpartition(".")[0]
    if not group:
        return {}
    component = BUILT_IN.find(group)
    when = {component.kind: group} if component is not None else table[group]["when"]
    return {parent: values if isinstance(values, list) else [values] for parent, values in when.items()}
