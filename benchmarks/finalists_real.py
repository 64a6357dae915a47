"""Do the finalists' figures hold on real images? Whole small searches, from each of which ten thousand training images are held back.

For each fold: a search with its finalists on 50,000 of Fashion-MNIST's training images, then the winner, trained again with fresh seeds
on as many images, is scored on the 10,000 that nothing of it ever saw. Printed: what the search said of its best trial, what the
finalists said of the winner, and what the held-back images say.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
HELD_BACK = 10_000
TRUTH_SEEDS = 4
"""Trainings of the winner that are scored on the held-back images."""
STUDY = """
name = "held-back"
seed = {fold}
use = ["held_back.py"]

[data]
dataset = "fashion-held-back"
validation_images = 5_000
train_images = 6_000

[budget]
trials = 16

[sampler]
kind = "random"

[pruner]
kind = "none"

[space]
model = "lenet5"
optimizer = "sgd"
epochs = 2
batch_size = {{ choices = [32, 64] }}
batch_norm = true
activation = {{ choices = ["tanh", "relu"] }}
pooling = {{ choices = ["average", "max"] }}
dropout = {{ float = [0.0, 0.3] }}
schedule = {{ choices = ["constant", "onecycle"] }}
lr = {{ float = [3e-2, 2e-1], log = true }}

[[baseline]]
batch_size = 64
"""


def one_fold(fold: int, *, top: int, seeds: int) -> dict[str, float]:
    """A search, its finalists, and the truth about the winner."""
    from hpsearch.place import Place
    from hpsearch.rerun import prepare_finalists, verdict_of
    from hpsearch.run import find_study_file, prepare_search
    from hpsearch.storage import one_trial, read_trials

    os.environ["HELD_BACK_FOLD"] = str(fold)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_text(STUDY.format(fold=fold))
        (Path(folder) / "held_back.py").write_text((HERE / "held_back.py").read_text())
        place = Place(runs=Path(folder) / "runs", storage=f"sqlite:///{folder}/study.db")
        file = find_study_file(str(path), place)
        search = prepare_search(file, place)
        for _ in search.run():
            pass
        again = prepare_finalists(file, place, top=top, seeds=seeds)
        for _ in again.run():
            pass
        verdict = verdict_of(file.name, search.store)
        assert verdict is not None
        assert verdict.winner is not None
        best = max(read_trials(search.study), key=lambda trial: trial.value or 0.0)
        winner = verdict.winner
        trial = one_trial(search.study, int(winner.candidate.trial or 0))
        truths = [truth(trial, fold, seed) for seed in range(TRUTH_SEEDS)]
        naive = truths if best.number == trial.number else [truth(best, fold, seed) for seed in range(TRUTH_SEEDS)]
        low, high = winner.mean.interval
        return {
            "search": float(best.value or 0.0),
            "search truth": statistics.mean(naive),
            "winner": winner.mean.value,
            "low": low,
            "high": high,
            "truth": statistics.mean(truths),
        }


def truth(trial, fold: int, seed: int) -> float:  # type: ignore[no-untyped-def]  # a TrialRow, whose module may not be loaded yet
    """The accuracy of a trial's configuration on the held-back images, trained with a fresh seed on fresh images."""
    import torch

    sys.path.insert(0, str(HERE))
    import held_back

    from hpsearch.training.data import split_of
    from hpsearch.training.trainer import train

    torch.set_num_threads(1)
    kept, unseen = held_back.held_back(kept=True), held_back.held_back(kept=False)
    config = replace(trial.config, seed=1_000_000 * fold + seed)
    split = split_of(kept, validation_images=5_000, train_images=6_000, seed=config.seed)
    split = replace(split, validation_images=unseen.images, validation_labels=unseen.labels)
    return [epoch.validation_accuracy for epoch in train(config, split)][-1]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=12)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args(arguments)
    print(f"{'fold':>5} {'search says':>12} {'truth':>7} {'winner says':>12} {'95 % interval':>18} {'truth':>7} held?")
    rows = []
    for fold in range(1, options.folds + 1):
        row = one_fold(fold, top=options.top, seeds=options.seeds)
        rows.append(row)
        held = row["low"] <= row["truth"] <= row["high"]
        print(
            f"{fold:>5} {100 * row['search']:>12.2f} {100 * row['search truth']:>7.2f} {100 * row['winner']:>12.2f} "
            f"{100 * row['low']:>9.2f} {100 * row['high']:>8.2f} {100 * row['truth']:>7.2f} {'yes' if held else 'no'}",
            flush=True,
        )
    naive = [100 * (row["search"] - row["search truth"]) for row in rows]
    bias = [100 * (row["winner"] - row["truth"]) for row in rows]
    held = sum(row["low"] <= row["truth"] <= row["high"] for row in rows)
    # What the held-back images say is a measurement too, of so many images.
    allowed = [1.96 * (row["truth"] * (1 - row["truth"]) / HELD_BACK) ** 0.5 for row in rows]
    halves = [math.hypot((row["high"] - row["low"]) / 2, own) for row, own in zip(rows, allowed, strict=True)]
    within = sum(abs(row["winner"] - row["truth"]) <= half for row, half in zip(rows, halves, strict=True))
    print(f"the search's best overstates by {statistics.mean(naive):+.2f} points (± {statistics.stdev(naive) / len(naive) ** 0.5:.2f})")
    print(f"the winner's reported mean by {statistics.mean(bias):+.2f} points (± {statistics.stdev(bias) / len(bias) ** 0.5:.2f})")
    print(
        f"its interval held the measured truth in {held} of {len(rows)}; with the chance of the held-back images allowed for, in {within}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
