"""How much faster the trainer is than the loops that people write, and two workers than one, against what is wanted of them.

    python benchmarks/throughput.py            # 7 minutes on two idle cores
    python benchmarks/throughput.py --quick    # 3 minutes, fewer images and rounds
    python benchmarks/throughput.py --slow     # bfloat16 also without the processor's instructions, to try the benchmark

Every loop trains the same model with the same optimizer, loss and batch size on the same number of
images, in one thread (OMP_NUM_THREADS=1), in a process of its own that lives through all rounds.
The processes take turns, one loop at a time, and the order turns round with every round, so that a
machine that slows down slows all of them. A ratio is the median over the rounds of the ratio within
a round. The loops:

    trainer     `hpsearch.training.trainer.train`; `Epoch.images_per_second`, as a study stores it
    bfloat16    the same in bfloat16, where the processor has the instructions for it
    epoch, epoch bfloat16    the two again, with the time of the evaluations, of as many images as a search of 10,000
                training and 10,000 validation images has
    dataloader  the loop of Optuna's PyTorch example: torchvision's data set, ToTensor, Normalize,
                DataLoader(shuffle=True), zero_grad, forward, loss, backward, step
    example     the same without Normalize, which that example leaves out; no target speaks of it
    memory      the same loop over normalised float tensors that lie in memory, indexed by a permutation
    bare        only the model's convolutions and linear layers, forward and backward, on one fixed
                batch, channels last

dataloader, example and memory build the model in the usual order (convolution, activation, pooling,
torch's own layers) and in torch's usual order of memory. No loop's figure contains an evaluation.

The ratios are read in two ways:

    as each is run        the trainer in the environment that hpsearch gives its workers (settings of
                          glibc's allocator that keep large blocks in the process), the loops that
                          people write in a plain one. This is what changes for a user, and the headline.
    the same environment  every loop in the environment of a worker: what the trainer's code alone gains.

bare, the measure of what the machine can do, has the worker's environment in both. The trainer may
come near it or beyond, because it does not compute rows and columns that no output depends on.

Two workers against one: wall time of an epoch, evaluation included, of one process and of two at once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from hpsearch.search.resources import bfloat16_instructions
from hpsearch.search.worker_pool import WORKER_ENVIRONMENT

TARGETS = {
    ("cnn", "dataloader"): 2.5,
    ("cnn", "memory"): 1.6,
    ("cnn", "bare"): 0.6,
    ("lenet5", "dataloader"): 2.5,
}
IN_BFLOAT16 = {
    ("cnn", "trainer"): 1.6,
    ("cnn", "dataloader"): 4.0,
    ("cnn", "bare"): 1.4,
    ("lenet5", "trainer"): 1.0,
    ("lenet5", "dataloader"): 2.7,
}
"""What is wanted of the trainer in bfloat16, against the trainer in float32 and the loops."""
TWO_WORKERS = 1.8
BATCH_SIZE = 128
SEED = 17
HAND_MADE = ("dataloader", "example", "memory")
OURS = {"trainer": "float32", "bfloat16": "bfloat16", "epoch": "float32", "epoch bfloat16": "bfloat16"}
"""The loops of hpsearch, with their number formats."""


def plain_model(name: str) -> Any:
    """The model as a tutorial writes it."""
    from torch import nn

    if name == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(1600, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def loop(name: str, model_name: str, images: int) -> Callable[[], float]:
    """A loop as a function that trains one epoch and returns images per second."""
    if name in OURS:
        return trainer(model_name, images, precision=OURS[name], whole_epoch=name.startswith("epoch"))
    if name == "bare":
        return bare(model_name, images)
    from torch import optim
    from torch.nn import functional

    batches = from_memory(images) if name == "memory" else from_loader(images, normalise=name == "dataloader")
    model = plain_model(model_name)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> float:
        model.train()
        start = time.perf_counter()
        for inputs, labels in batches():
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        return images / (time.perf_counter() - start)

    return epoch


def from_loader(images: int, *, normalise: bool) -> Callable[[], Any]:
    """Batches as a tutorial makes them, decoded image by image."""
    from torch.utils.data import DataLoader, Subset

    from hpsearch.training.data import download as vision
    from hpsearch.training.data import files

    transforms = __import__("torchvision.transforms", fromlist=["transforms"])
    steps = [transforms.ToTensor()]
    if normalise:
        steps.append(transforms.Normalize((0.2860,), (0.3530,)))
    root = files.prepare("fashion-mnist")
    data = vision._datasets.FashionMNIST(root, train=True, download=False, transform=transforms.Compose(steps))
    loader = DataLoader(Subset(data, range(images)), batch_size=BATCH_SIZE, shuffle=True)
    return lambda: loader


def from_memory(images: int) -> Callable[[], Any]:
    """Batches out of tensors that are normalised beforehand."""
    import torch

    split = our_split(images)
    inputs, labels = (split.train_images.float() / 255 - split.mean[0]) / split.std[0], split.train_labels
    return lambda: ((inputs[indices], labels[indices]) for indices in torch.randperm(images).split(BATCH_SIZE))


def our_split(images: int, validation_images: int = 1_000) -> Any:
    from hpsearch.training.data.split import load_split

    return load_split(validation_images=validation_images, seed=SEED, train_images=images)


def trainer(model_name: str, images: int, *, precision: str, whole_epoch: bool) -> Callable[[], float]:
    """hpsearch's own, with or without the time of the two evaluations of an epoch."""
    from hpsearch.config.components import BUILT_IN
    from hpsearch.config.train_config import resolve
    from hpsearch.training.trainer import train

    settings = {("trainer", "model"): model_name, ("trainer", "epochs"): 10_000, ("trainer", "precision"): precision}
    epochs = train(resolve(settings, catalog=BUILT_IN, seed=SEED), our_split(images, images if whole_epoch else 1_000), device="cpu")
    return (lambda: images / next(epochs).seconds) if whole_epoch else (lambda: next(epochs).images_per_second)


def bare(model_name: str, images: int) -> Callable[[], float]:
    """The layers with weights, each by itself."""
    import torch
    from torch import nn

    layers = [layer.to(memory_format=torch.channels_last) for layer in plain_model(model_name) if isinstance(layer, nn.Conv2d | nn.Linear)]
    shapes = {
        "cnn": [(1, 28, 28), (32, 13, 13), (1600,), (64,)],
        "lenet5": [(1, 28, 28), (6, 14, 14), (16, 5, 5), (120,), (84,)],
    }[model_name]
    batches = [torch.randn(BATCH_SIZE, *shape) for shape in shapes]
    batches = [batch.to(memory_format=torch.channels_last) if batch.ndim == 4 else batch for batch in batches]
    # Only the images need no gradient.
    batches = [batch.requires_grad_(number > 0) for number, batch in enumerate(batches)]
    gradients = [torch.randn_like(layer(batch)) for layer, batch in zip(layers, batches, strict=True)]

    def epoch() -> float:
        steps = images // BATCH_SIZE
        start = time.perf_counter()
        for _ in range(steps):
            for layer, batch, gradient in zip(layers, batches, gradients, strict=True):
                layer.zero_grad()
                batch.grad = None
                layer(batch).backward(gradient)
        return steps * BATCH_SIZE / (time.perf_counter() - start)

    return epoch


LOOP = "--loop"


def serve(name: str, model: str, images: int) -> None:
    """A loop's process: an epoch to warm up, and then one for each line that comes in."""
    epoch = loop(name, model, images)
    epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(epoch(), flush=True)


class Contender:
    """A loop in a process of its own."""

    def __init__(self, name: str, model: str, images: int, *, as_worker: bool) -> None:
        settings = {name: value for name, value in os.environ.items() if name not in WORKER_ENVIRONMENT}
        settings |= WORKER_ENVIRONMENT if as_worker else {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, LOOP, name, model, str(images)]
        # glibc reads its settings when a process starts.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings)
        if self.answer() != "ready":
            raise SystemExit(f"the loop {name} cannot run")

    def go(self) -> None:
        """Have it train for an epoch."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """What it says of the epoch, once it is over."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Let go of it."""
        self._process.communicate()


def compare(model: str, images: int, rounds: int, *, with_bfloat16: bool) -> tuple[bool, bool, bool]:
    """Print the loops of a model side by side; whether the targets are reached as each is run, in the same environment, and in bfloat16."""
    who = [("trainer", True), *((name, False) for name in HAND_MADE), *((name, True) for name in HAND_MADE), ("bare", True)]
    who += [(name, True) for name in OURS if name != "trainer"] if with_bfloat16 else []
    contenders = {key: Contender(key[0], model, images, as_worker=key[1]) for key in who}
    measured: dict[tuple[str, bool], list[float]] = {key: [] for key in who}
    for number in range(rounds):
        # The other way round every second time, so that no loop always follows the same one.
        for key in who if number % 2 == 0 else reversed(who):
            contenders[key].go()
            measured[key].append(float(contenders[key].answer()))
    for contender in contenders.values():
        contender.end()
    verdicts = []
    for title, as_worker in (("as each is run", False), ("the same environment", True)):
        print(f"\n### {model}, {title}: {images:,} images an epoch, {rounds} rounds\n")
        print("| loop | images/s (median) | lowest to highest | trainer against it | quartiles | wanted | |")
        print("|---|---|---|---|---|---|---|")
        reached = True
        for name, key in [("trainer", who[0]), *((name, (name, as_worker)) for name in HAND_MADE), ("bare", ("bare", True))]:
            reached &= print_row(name, measured[who[0]], measured[key], TARGETS.get((model, name)))
        verdicts.append(reached)
    reached = True
    if with_bfloat16:
        print(f"\n### {model}, bfloat16 as each is run: {images:,} images an epoch, {rounds} rounds\n")
        print("| loop | images/s (median) | lowest to highest | bfloat16 against it | quartiles | wanted | |")
        print("|---|---|---|---|---|---|---|")
        own = measured["bfloat16", True]
        print_row("bfloat16", own, own, None)
        for name, as_worker in (("trainer", True), ("dataloader", False), ("bare", True)):
            reached &= print_row(name, own, measured[name, as_worker], IN_BFLOAT16.get((model, name)))
        print_row("epoch: bfloat16 against float32", measured["epoch bfloat16", True], measured["epoch", True], None)
    return verdicts[0], verdicts[1], reached


def print_row(name: str, own: list[float], speeds: list[float], target: float | None) -> bool:
    """Print how much faster one loop is than another, round by round; whether the target is reached."""
    low, ratio, high = statistics.quantiles([mine / other for mine, other in zip(own, speeds, strict=True)], n=4, method="inclusive")
    verdict = "" if target is None else "reached" if ratio >= target else "MISSED"
    print(
        f"| {name} | {statistics.median(speeds):,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} | {ratio:.2f}× "
        f"| {low:.2f} to {high:.2f} | {f'{target:.1f}×' if target else ''} | {verdict} |",
        flush=True,
    )
    return verdict != "MISSED"


def compare_workers(model: str, images: int, rounds: int) -> bool:
    """Print one worker against two; whether the target is reached."""
    pair = [Contender("trainer", model, images, as_worker=True) for _ in range(2)]

    def speed(running: list[Contender]) -> float:
        start = time.perf_counter()
        for contender in running:
            contender.go()
        for contender in running:
            contender.answer()
        return len(running) * images / (time.perf_counter() - start)

    ones, twos = [], []
    for number in range(rounds):
        ones.append(speed([pair[number % 2]]))
        twos.append(speed(pair))
    for contender in pair:
        contender.end()
    low, ratio, high = statistics.quantiles([two / one for one, two in zip(ones, twos, strict=True)], n=4, method="inclusive")
    print(
        f"| {model} | {statistics.median(ones):,.0f} | {statistics.median(twos):,.0f} | {ratio:.2f}× | {low:.2f} to {high:.2f} "
        f"| {TWO_WORKERS}× | {'reached' if ratio >= TWO_WORKERS else 'MISSED'} |",
        flush=True,
    )
    return ratio >= TWO_WORKERS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--slow", action="store_true", help="bfloat16 also without instructions for it")
    parser.add_argument(LOOP, nargs=3, metavar=("LOOP", "MODEL", "IMAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        serve(arguments.loop[0], arguments.loop[1], int(arguments.loop[2]))
        return 0
    images, rounds = (2_560, 3) if arguments.quick else (7_680, 7)
    import torch

    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, batch {BATCH_SIZE}, "
        f"one thread a process, load {os.getloadavg()[0]:.1f} at the start"
    )
    instructions = bfloat16_instructions()
    print(f"instructions for bfloat16: {instructions or 'none'}")
    with_bfloat16 = bool(instructions) or arguments.slow
    rows = [compare(model, images, rounds, with_bfloat16=with_bfloat16) for model in ("cnn", "lenet5")]
    as_run, same, rounded = zip(*rows, strict=True)
    print("\n### one worker and two, evaluation included\n")
    print("| model | one: images/s | two: images/s | ratio | quartiles | wanted | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    two = [compare_workers(model, images, rounds) for model in ("cnn", "lenet5")]
    print(f"\nas each is run: {'all targets reached' if all(as_run) else 'A TARGET WAS MISSED'}")
    print(f"the same environment: {'all targets reached' if all(same) else 'A TARGET WAS MISSED'}")
    if with_bfloat16:
        print(f"bfloat16: {'all targets reached' if all(rounded) else 'A TARGET WAS MISSED'}")
    print(f"two workers: {'all targets reached' if all(two) else 'A TARGET WAS MISSED'}")
    return 0 if all([*as_run, *rounded, *two]) else 1


if __name__ == "__main__":
    sys.exit(main())
