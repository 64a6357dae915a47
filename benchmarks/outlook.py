"""Are `stop = "auto"` and `balance = "until_behind"` right? Searches at random, in recorded and in made-up spaces; no training.

    python benchmarks/outlook.py    # a minute

The recorded spaces are the final accuracies of benchmarks/data/curves-*.jsonl. In a made-up space, the accuracies lie below a best one as the
absolute values of a normal distribution do, with a given standard deviation.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import curves

from hpsearch.analysis.outlook import gain_of_doubling, look_ahead, trailing_models
from hpsearch.config.sections import MIN_TRIALS

SEARCHES = 300
LONGEST = 60
"""Trials of a search of two models, and of the longest search of one model, of which a doubling is known."""

Space = Callable[[random.Random], list[float]]
"""Draws the accuracies of the trials of a search, in their order."""


def made_up(best: float, deviation: float) -> Space:
    return lambda drawn: [best - abs(drawn.gauss(0, deviation)) for _ in range(2 * LONGEST)]


def recorded(name: str) -> Space:
    accuracies = [curves.final(run) for run in curves.recorded(name) if run["seed"] == 0]
    return lambda drawn: drawn.sample(accuracies, len(accuracies))


def percent(values: list[float]) -> str:
    low, high = (sorted(values)[round(share * (len(values) - 1))] for share in (0.1, 0.9))
    return f"{100 * statistics.mean(values):.2f} ({100 * low:.2f} to {100 * high:.2f})"


def estimates(spaces: dict[str, Space]) -> None:
    print("What as many trials again bring, in points: mean and the middle 80 % of the searches\n")
    print("| space | trials | expected | brought |\n|---|---|---|---|")
    for name, space in spaces.items():
        for count in (10, 20, 40):
            searches = [space(random.Random(seed)) for seed in range(SEARCHES)]
            expected = [gain_of_doubling(accuracies[:count]) for accuracies in searches]
            brought = [max(accuracies[: 2 * count]) - max(accuracies[:count]) for accuracies in searches]
            print(f"| {name} | {count} | {percent(expected)} | {percent(brought)} |")


def stops(spaces: dict[str, Space]) -> None:
    print('\nWhere `stop = "auto"` ends a search, and what as many trials again would have brought, in points\n')
    print("| space | validation images | trials, middle 80 % | lost |\n|---|---|---|---|")
    for name, space in spaces.items():
        for n_images in (5_000, 10_000):
            ends, lost = [], []
            for seed in range(SEARCHES):
                accuracies = space(random.Random(seed))
                end = next(
                    (
                        count
                        for count in range(MIN_TRIALS, LONGEST)
                        if (outlook := look_ahead({"": accuracies[:count]}, n_images)) and outlook.is_small
                    ),
                    LONGEST,
                )
                ends.append(end)
                lost.append(max(accuracies[: 2 * end]) - max(accuracies[:end]))
            low, middle, high = (sorted(ends)[round(share * (SEARCHES - 1))] for share in (0.1, 0.5, 0.9))
            print(f"| {name} | {n_images:,} | {middle} ({low} to {high}) | {percent(lost)} |")


def balances() -> None:
    print(f'\nTwo models, {LONGEST} trials, `balance = "until_behind"`; the first model is the better one, by the gap\n')
    print(
        "| gap in points | validation images | second ended | first ended | best of all: gained over equal numbers, in points |\n|---|---|---|---|---|"
    )
    for gap in (0.0, 0.005, 0.01, 0.015, 0.02):
        for n_images in (5_000, 10_000):
            ended = {"first": 0, "second": 0}
            gained = []
            for seed in range(SEARCHES):
                spaces = {
                    "first": made_up(0.92, 0.03)(random.Random(f"{seed}/1")),
                    "second": made_up(0.92 - gap, 0.03)(random.Random(f"{seed}/2")),
                }
                best, behind = search_both(spaces, n_images)
                ended.update({model: ended[model] + 1 for model in behind})
                gained.append(best - max(max(accuracies[: LONGEST // 2]) for accuracies in spaces.values()))
            shares = " | ".join(f"{100 * ended[model] / SEARCHES:.0f} %" for model in ("second", "first"))
            print(f"| {100 * gap:.1f} | {n_images:,} | {shares} | {100 * statistics.mean(gained):+.2f} |")


def search_both(spaces: dict[str, list[float]], n_images: int) -> tuple[float, set[str]]:
    """Return the best accuracy of a search of two models, and the models that got no more trials."""
    seen: dict[str, list[float]] = {model: [] for model in spaces}
    behind: set[str] = set()
    for _ in range(LONGEST):
        model = min((model for model in spaces if model not in behind), key=lambda model: len(seen[model]))
        seen[model].append(spaces[model][len(seen[model])])
        behind = set(trailing_models(seen, n_images))
    return max(map(max, seen.values())), behind


def main() -> int:
    made = {f"made up, deviation {100 * deviation:.0f} points": made_up(0.92, deviation) for deviation in (0.01, 0.03)}
    spaces = {**{f"recorded {name}": recorded(name) for name in curves.SPACES}, **made}
    estimates(spaces)
    stops(spaces)
    balances()
    return 0


if __name__ == "__main__":
    sys.exit(main())
