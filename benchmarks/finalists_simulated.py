"""Do the finalists' figures hold? Whole searches are simulated, in which the true scores are known.

A hundred configurations, of which a search sees one run each on one split. An image is right or wrong for all alike in part
(some are hard), for a configuration in part, and a seed adds its own noise. Splits are drawn out of the same 60,000 images, so
they overlap as real ones do. Printed: how much the best single run overstates, the bias of the winner's reported mean, and how
often the intervals hold the truth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

import numpy

from hpsearch.analysis.finalists import Candidate, evaluate_finalists, next_round

CONFIGS = 100
BLOCKS, IN_SPLIT = 60, 10
"""The 60,000 training images in blocks of a thousand, ten of which are a split's validation images."""
IMAGES = 1000 * IN_SPLIT
SEED_NOISE = 0.0020
"""Standard deviation of the accuracy from seed to seed, as measured on Fashion-MNIST (docs/architecture.md)."""
SHARED, OWN = 0.0060, 0.0060
"""Standard deviation of a block's accuracy, for all configurations alike and for each its own: together 0.27 points on ten blocks."""
SPREAD = 0.0040
"""Standard deviation of the true scores."""


class World:
    """One search whose truth is known."""

    def __init__(self, generator: numpy.random.Generator) -> None:
        self._generator = generator
        self.truth = 0.91 + SPREAD * generator.standard_normal(CONFIGS)
        self._shared = SHARED * generator.standard_normal(BLOCKS)
        self._own = OWN * generator.standard_normal((CONFIGS, BLOCKS))
        self._splits: dict[int, numpy.ndarray] = {}

    def run(self, config: int, repeat: int) -> float:
        """One run; repeat 0 is the search's split."""
        if repeat not in self._splits:
            # Repeat 0 is block 0 to 9; nobody else validates on the search's validation images.
            self._splits[repeat] = (
                numpy.arange(IN_SPLIT) if repeat == 0 else IN_SPLIT + self._generator.permutation(BLOCKS - IN_SPLIT)[:IN_SPLIT]
            )
        blocks = self._splits[repeat]
        luck = (self._shared[blocks] + self._own[config, blocks]).mean() + SEED_NOISE * self._generator.standard_normal()
        return float(self.truth[config] + luck)


def search(world: World, *, top: int, seeds: int) -> dict[str, float]:
    """One search with its finalists: what it reports, and what is true."""
    values = [world.run(config, 0) for config in range(CONFIGS)]
    best = sorted(range(CONFIGS), key=lambda config: -values[config])[:top]
    baseline = CONFIGS // 2 if CONFIGS // 2 not in best else next(config for config in range(CONFIGS) if config not in best)
    chosen = {f"trial {config}": config for config in (*best, baseline)}
    candidates = [
        Candidate(name=name, trial=config, value=values[config], model="cnn", n_parameters=None, is_baseline=config == baseline)
        for name, config in chosen.items()
    ]
    scores: dict[str, dict[int, float]] = {name: {} for name in chosen}
    facts = {"seeds": seeds, "n_images": IMAGES, "pool": 1000 * (BLOCKS - IN_SPLIT)}
    runs = 0
    while required_runs := next_round(candidates, scores, **facts).required_runs:
        for name, repeat in required_runs:
            scores[name][repeat] = world.run(chosen[name], repeat)
            runs += 1
    verdict = evaluate_finalists(candidates, scores, **facts)
    winner = verdict.winner
    assert winner is not None
    truth = world.truth[chosen[winner.candidate.name]]
    found = {
        "naive": values[best[0]] - world.truth[best[0]],
        "bias": winner.mean.value - truth,
        "covered": winner.mean.interval[0] <= truth <= winner.mean.interval[1],
        "width": winner.mean.interval[1] - winner.mean.interval[0],
        "regret": world.truth.max() - truth,
        "regret of naive": world.truth.max() - world.truth[best[0]],
        "runs": runs,
        "probability of best": winner.best,
        "is best of finalists": truth == max(world.truth[config] for config in chosen.values()),
    }
    if verdict.gain is not None:
        gain = truth - world.truth[baseline]
        found["gain bias"] = verdict.gain.value - gain
        found["gain covered"] = verdict.gain.interval[0] <= gain <= verdict.gain.interval[1]
    return found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print("points of accuracy; bias is what is reported less the truth")
    print(f"{'top':>4} {'seeds':>6} {'naive':>7} {'bias':>7} {'covers':>8} {'± half':>7} {'gain bias':>10} {'covers':>8} {'regret':>7} {'naive':>6} {'runs':>6} {'says best':>10} {'is best':>8}")  # fmt: skip
    for top, seeds in ((3, 4), (3, 8), (5, 8), (3, 16)):
        rows = [search(World(numpy.random.default_rng([options.seed, number])), top=top, seeds=seeds) for number in range(options.repeats)]

        def mean(key: str, rows: list[dict[str, float]] = rows) -> float:
            return statistics.mean(float(row[key]) for row in rows if key in row)

        print(
            f"{top:>4} {seeds:>6} {100 * mean('naive'):>+7.3f} {100 * mean('bias'):>+7.3f} {100 * mean('covered'):>7.1f}% {50 * mean('width'):>7.2f} "
            f"{100 * mean('gain bias'):>+10.3f} {100 * mean('gain covered'):>7.1f}% {100 * mean('regret'):>7.2f} {100 * mean('regret of naive'):>6.2f} "
            f"{mean('runs'):>6.1f} {mean('probability of best'):>10.2f} {mean('is best of finalists'):>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
