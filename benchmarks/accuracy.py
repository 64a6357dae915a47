"""Claim: with defaults and 10 epochs on 50,000 images, the CNN reaches 90.5 % on 10,000 validation images, LeNet-5 87 %.

    python benchmarks/accuracy.py            # 5 minutes on one core
    python benchmarks/accuracy.py cnn        # one of the two

One seed, one thread, Adam at 0.001, batches of 128. The test images are not looked at.
"""

from __future__ import annotations

import argparse
import sys

import torch

from hpsearch.config.components import BUILT_IN
from hpsearch.config.train_config import resolve
from hpsearch.training.data.split import load_split
from hpsearch.training.trainer import train

TARGETS = {"cnn": 0.905, "lenet5": 0.87}
SEED = 17


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(TARGETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split(validation_images=10_000, seed=SEED)
    reached = True
    for model in arguments.models:
        print(f"\n| {model}: epoch | train loss | train accuracy | validation loss | validation accuracy | seconds |")
        print("|---|---|---|---|---|---|")
        config = resolve({("trainer", "model"): model, ("trainer", "epochs"): 10}, catalog=BUILT_IN, seed=SEED)
        for epoch in train(config, split, device="cpu"):
            print(
                f"| {epoch.number} | {epoch.train_loss:.4f} | {epoch.train_accuracy:.4f} | {epoch.val_loss:.4f} "
                f"| {epoch.val_accuracy:.4f} | {epoch.seconds:.1f} |",
                flush=True,
            )
        good = epoch.val_accuracy >= TARGETS[model]
        reached &= good
        print(f"\n{model}: {epoch.val_accuracy:.4f}, wanted {TARGETS[model]} or more: {'reached' if good else 'MISSED'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
