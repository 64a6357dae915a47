"""Claim: bfloat16 costs no accuracy. The same runs in float32 and in bfloat16, seed by seed.

    python benchmarks/precision_parity.py --file parity.jsonl                      # hours; the same command continues it
    python benchmarks/precision_parity.py --file parity.jsonl --seeds 2 --images 2000 --epochs 2    # to try it

Trains each network with each learning rate and seed in both number formats, and stores each run as it ends. Then prints the difference
of the mean validation accuracies with a 95 % interval over the seeds (paired: both formats of a seed share split, weights and batches).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit

import hpsearch

NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"model": "cnn"},
    "cnn with batch norm": {"model": "cnn", "batch_norm": True},
    "lenet5": {"model": "lenet5"},
}
LEARNING_RATES = (5e-4, 2e-3)
WANTED = 0.05
"""Points. A larger difference is a loss if its interval does not contain zero."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True, help="where the runs are stored")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=50_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    stored = [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
    runs = {(run["network"], run["lr"], run["seed"], run["precision"]): run["val_accuracy"] for run in stored}
    for seed in range(options.seeds):
        split = hpsearch.load_split(validation_images=min(10_000, options.images), seed=seed, train_images=options.images)
        for network, values in NETWORKS.items():
            for lr in LEARNING_RATES:
                for precision in ("float32", "bfloat16"):
                    if (network, lr, seed, precision) not in runs:
                        config = hpsearch.configure(seed=seed, epochs=options.epochs, lr=lr, precision=precision, **values)
                        *_, last = hpsearch.train(config, split, device="cpu")
                        runs[network, lr, seed, precision] = last.val_accuracy
                        run = {"network": network, "lr": lr, "seed": seed, "precision": precision, "val_accuracy": last.val_accuracy}
                        with options.file.open("a") as file:
                            file.write(f"{json.dumps(run)}\n")
    print(f"{options.seeds} seeds, {options.epochs} epochs of {options.images:,} images, torch {torch.__version__}\n")
    print("| network | lr | float32 | bfloat16 | difference, points | wanted | |\n|---|---|---|---|---|---|---|")
    verdicts = [print_row(network, lr, runs, options.seeds) for network in NETWORKS for lr in LEARNING_RATES]
    return 0 if all(verdicts) else 1


def print_row(network: str, lr: float, runs: dict[Any, float], seeds: int) -> bool:
    """Print one comparison; whether the formats agree."""
    exact, rounded = ([100 * runs[network, lr, seed, precision] for seed in range(seeds)] for precision in ("float32", "bfloat16"))
    differences = [after - before for before, after in zip(exact, rounded, strict=True)]
    mean = statistics.mean(differences)
    margin = float(stdtrit(seeds - 1, 0.975)) * statistics.stdev(differences) / seeds**0.5
    agree = abs(mean) <= max(WANTED, margin)
    print(
        f"| {network} | {lr:g} | {statistics.mean(exact):.2f} | {statistics.mean(rounded):.2f} | {mean:+.3f} ± {margin:.3f} "
        f"| ≤ {WANTED} or within | {'reached' if agree else 'MISSED'} |"
    )
    return agree


if __name__ == "__main__":
    sys.exit(main())
