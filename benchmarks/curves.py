"""Record real learning curves of random configurations, for searches to be replayed on (benchmarks/replay.py is to read them).

    python benchmarks/curves.py --workers 2     # many hours; it can be stopped at any time, and the same command continues
    python benchmarks/curves.py --summary       # what is recorded

Draws random points of the spaces of studies/cnn.toml and studies/lenet5.toml, with 3 to 12 epochs, and trains each on 10,000 images.
Each run is one line of `benchmarks/data/curves-<space>.jsonl`: the point, the validation accuracy and the seconds at the rungs of 0.1 and
0.3 of the first epoch and after each epoch. When all points of a space are recorded, the best are trained again with other seeds. All
runs of a space share one split, as in a search.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hpsearch.search.worker_pool import train_like_a_worker

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data"
SPACES = {"cnn": "epochs          = { int = [5, 15] }", "lenet5": "epochs     = { int = [5, 20] }"}
"""The lines of the study files that are replaced."""
EPOCHS = "epochs = { int = [3, 12] }"
RUNGS = (0.1, 0.3)
POINTS, BEST, SEEDS = 300, 30, 5
"""Random points of each space, and how many of the best are trained again, with how many more seeds."""
TRAIN_IMAGES, VALIDATION_IMAGES, SPLIT_SEED = 10_000, 5_000, 0

Task = tuple[str, int, int]
"""A space, the number of a point, and the number of the seed. Seed 0 is the one with which each point is trained first."""


@cache
def space_of(name: str) -> Any:
    from hpsearch.config.study_file import parse_study_file

    path = ROOT / "studies" / f"{name}.toml"
    text = path.read_text()
    assert SPACES[name] in text, f"{path} has other epochs now"
    return parse_study_file(text.replace(SPACES[name], EPOCHS), path=path).space


@cache
def split() -> Any:
    from hpsearch.training.data.split import load_split

    return load_split(validation_images=VALIDATION_IMAGES, seed=SPLIT_SEED, train_images=TRAIN_IMAGES)


def record(task: Task) -> tuple[str, str]:
    """Train one point and return the space and the line for its file."""
    import optuna

    from hpsearch.config.epoch import Rung
    from hpsearch.config.seeds import derive_seed
    from hpsearch.training.trainer import train

    name, number, seed = task
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=derive_seed(0, "curves", name, number, bits=32)))
    values = space_of(name).sample(study.ask())
    config = space_of(name).config(values, seed=derive_seed(0, "curves", name, number, seed))
    rungs, epochs, diverged = [], [], False
    for each in train(config, split(), device="cpu", rungs=RUNGS):
        if isinstance(each, Rung):
            rungs.append([each.share, round(each.val_accuracy, 4), round(each.seconds, 2)])
        else:
            epochs.append([round(each.val_accuracy, 4), round(each.seconds, 2)])
            diverged = each.diverged
    searched = {parameter.name: values[parameter.name] for parameter in space_of(name).searched if parameter.name in values}
    point = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in searched.items()}
    run = {"point": number, "seed": seed, "params": point, "rungs": rungs, "epochs": epochs, "diverged": diverged}
    return name, json.dumps(run, separators=(",", ":"))


def recorded(name: str) -> list[dict[str, Any]]:
    path = DATA / f"curves-{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def final(run: dict[str, Any]) -> float:
    return -1.0 if run["diverged"] else float(run["epochs"][-1][0])


def tasks() -> Iterator[Task]:
    """What is left to do: the points of both spaces in turn, then the further seeds of the best."""
    done = {(name, run["point"], run["seed"]) for name in SPACES for run in recorded(name)}
    for number in range(POINTS):
        yield from ((name, number, 0) for name in SPACES if (name, number, 0) not in done)
    for name in SPACES:
        best = sorted((run for run in recorded(name) if run["seed"] == 0), key=final, reverse=True)[:BEST]
        for seed in range(1, SEEDS + 1):
            yield from ((name, run["point"], seed) for run in best if (name, run["point"], seed) not in done)


def summarize() -> None:
    print("| space | points | runs | epochs | hours of a core | best | median |\n|---|---|---|---|---|---|---|")
    for name in SPACES:
        runs = recorded(name)
        firsts = sorted(final(run) for run in runs if run["seed"] == 0)
        if firsts:
            hours = sum(seconds for run in runs for _, seconds in run["epochs"]) / 3600
            epochs = sum(len(run["epochs"]) for run in runs)
            print(f"| {name} | {len(firsts)} | {len(runs)} | {epochs} | {hours:.1f} | {firsts[-1]:.4f} | {statistics.median(firsts):.4f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--summary", action="store_true", help="only print what is recorded")
    options = parser.parse_args()
    if not options.summary:
        train_like_a_worker()
        DATA.mkdir(exist_ok=True)
        split()  # the forked processes share it
        with multiprocessing.get_context("fork").Pool(options.workers, maxtasksperchild=20) as pool:
            # Only points whose turn has come are known: the best are chosen when all points are recorded.
            while left := [task for task in tasks() if task[2] == 0] or list(tasks()):
                for name, line in pool.imap_unordered(record, left):
                    with (DATA / f"curves-{name}.jsonl").open("ab", buffering=0) as file:
                        file.write(f"{line}\n".encode())  # one write, so that a kill leaves no half of a line
                    print(name, line[:100], flush=True)
    summarize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
