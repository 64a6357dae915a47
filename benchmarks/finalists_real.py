"""Do the finalists' figures hold on real images? Whole small searches, from each of which ten thousand training images are held back.

For each fold: a search with its finalists on 50,000 of Fashion-MNIST's training images, then the winner, trained again with fresh seeds
on as many images, is scored on the 10,000 that nothing of it ever saw. Printed: what the search said of its best trial, what the
finalists said of the winner, and what the held-back images say.

    python benchmarks/finalists_real.py                                    # one fold after another: most of an hour on two cores
    python benchmarks/finalists_real.py --jobs 12 --results folds.jsonl    # side by side: 8 minutes on 16 cores

What stands in the file of results is not run again, so that the same command goes on where it was interrupted.
All of it runs on the CPU, whatever else the machine has, so that the figures do not depend on a card.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from hpsearch.search.worker_pool import WORKER_ENVIRONMENT

Row = dict[str, float]

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


def one_fold(fold: int, *, top: int, seeds: int, workers: int) -> Row:
    """A search, its finalists, and the truth about the winner."""
    from hpsearch.storage.records import read_trial, read_trials
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.repeats import find_verdict, prepare_finalists
    from hpsearch.workflows.run import find_study_file, prepare_search

    os.environ["HELD_BACK_FOLD"] = str(fold)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_text(STUDY.format(fold=fold))
        (Path(folder) / "held_back.py").write_text((HERE / "held_back.py").read_text())
        workspace = Workspace(runs=Path(folder) / "runs", storage=f"sqlite:///{folder}/study.db", device="cpu")
        file = find_study_file(str(path), workspace)
        search = prepare_search(file, workspace, workers=workers)
        for _ in search.run():
            pass
        again = prepare_finalists(file, workspace, top=top, seeds=seeds, workers=workers)
        for _ in again.run():
            pass
        verdict = find_verdict(file.name, search.store)
        assert verdict is not None
        assert verdict.winner is not None
        best = max(read_trials(search.study), key=lambda trial: trial.value or 0.0)
        winner = verdict.winner
        trial = read_trial(search.study, int(winner.candidate.trial or 0))
        truths = [truth(trial, fold, seed) for seed in range(TRUTH_SEEDS)]
        naive = truths if best.number == trial.number else [truth(best, fold, seed) for seed in range(TRUTH_SEEDS)]
        low, high = winner.mean.interval
        return {
            "fold": fold,
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

    from hpsearch.training.data.split import make_split
    from hpsearch.training.trainer import train

    torch.set_num_threads(1)
    kept, unseen = held_back.held_back(kept=True), held_back.held_back(kept=False)
    config = replace(trial.config, seed=1_000_000 * fold + seed)
    split = make_split(kept, validation_images=5_000, train_images=6_000, seed=config.seed)
    split = replace(split, validation_images=unseen.images, validation_labels=unseen.labels)
    return [epoch.val_accuracy for epoch in train(config, split, device="cpu")][-1]


def run_folds(folds: Sequence[int], *, jobs: int, top: int, seeds: int) -> Iterator[Row]:
    """Run so many folds at a time, each in a process of its own, and yield what each found as it ends; one that fails is left out."""
    workers = max(1, (os.cpu_count() or 1) // jobs)
    # glibc reads its settings when a process starts, so that of these the truth trains as fast as a worker does.
    os.environ.update(WORKER_ENVIRONMENT)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(one_fold, fold, top=top, seeds=seeds, workers=workers): fold for fold in folds}
        for done in as_completed(running):
            if error := done.exception():
                print(f"fold {running[done]} failed: {error!r}", file=sys.stderr, flush=True)
            else:
                yield done.result()


def read_rows(path: Path | None) -> list[Row]:
    """The folds that earlier calls have finished."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def held(row: Row) -> bool:
    """Whether the winner's interval holds what the held-back images say."""
    return row["low"] <= row["truth"] <= row["high"]


def show(row: Row) -> None:
    """Print a fold."""
    print(
        f"{row['fold']:>5} {100 * row['search']:>12.2f} {100 * row['search truth']:>7.2f} {100 * row['winner']:>12.2f} "
        f"{100 * row['low']:>9.2f} {100 * row['high']:>8.2f} {100 * row['truth']:>7.2f} {'yes' if held(row) else 'no'}",
        flush=True,
    )


def summarise(rows: Sequence[Row]) -> None:
    """Print how far off the folds' figures are, and how often the intervals held."""
    naive = [100 * (row["search"] - row["search truth"]) for row in rows]
    bias = [100 * (row["winner"] - row["truth"]) for row in rows]
    # What the held-back images say is a measurement too, of so many images.
    allowed = [1.96 * (row["truth"] * (1 - row["truth"]) / HELD_BACK) ** 0.5 for row in rows]
    halves = [math.hypot((row["high"] - row["low"]) / 2, own) for row, own in zip(rows, allowed, strict=True)]
    within = sum(abs(row["winner"] - row["truth"]) <= half for row, half in zip(rows, halves, strict=True))
    print(f"the search's best overstates by {statistics.mean(naive):+.2f} points (± {statistics.stdev(naive) / len(naive) ** 0.5:.2f})")
    print(f"the winner's reported mean by {statistics.mean(bias):+.2f} points (± {statistics.stdev(bias) / len(bias) ** 0.5:.2f})")
    print(
        f"its interval held the measured truth in {sum(map(held, rows))} of {len(rows)}; "
        f"with the chance of the held-back images allowed for, in {within}"
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=12)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time; their searches share the cores")
    parser.add_argument("--results", type=Path, help="a file of one JSON object a fold, appended to as each ends")
    options = parser.parse_args(arguments)
    print(f"{'fold':>5} {'search says':>12} {'truth':>7} {'winner says':>12} {'95 % interval':>18} {'truth':>7} held?")
    rows = read_rows(options.results)
    for row in rows:
        show(row)
    missing = sorted(set(range(1, options.folds + 1)) - {int(row["fold"]) for row in rows})
    for row in run_folds(missing, jobs=options.jobs, top=options.top, seeds=options.seeds):
        rows.append(row)
        show(row)
        if options.results is not None:
            with options.results.open("a") as file:
                file.write(f"{json.dumps(row)}\n")
    if len(rows) > 1:
        summarise(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
