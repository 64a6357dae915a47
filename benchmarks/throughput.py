"""How much faster the trainer is than the usual loops on a CPU, and two workers than one, against what is wanted of them.

    python benchmarks/throughput.py            # 6 minutes on two idle cores
    python benchmarks/throughput.py --quick    # 90 seconds, fewer images and rounds

Every loop trains the same model with the same optimizer, loss and batch size in one thread, on
the same images, in the same process environment; the loops take turns, round by round, so that a
machine that slows down slows all of them. Reported is the median over the rounds of the ratio
within a round. The loops:

    trainer     `hpsearch.training.trainer.train`; `Epoch.images_per_second`, as a study stores it
    dataloader  the loop of Optuna's PyTorch example: torchvision's data set, ToTensor, Normalize,
                DataLoader(shuffle=True), zero_grad, forward, loss, backward, step
    memory      the same loop over normalised float tensors that lie in memory, indexed by a permutation
    bare        only the model's convolutions and linear layers, forward and backward, on one fixed batch

The comparison loops build the model in the usual order (convolution, activation, pooling, with
torch's own dropout) and in torch's usual order of memory.

Workers of hpsearch are started with settings of glibc's allocator that keep large blocks in the
process. Here they hold for every loop alike, so they are no part of the ratios; how fast the loops
are without them is measured at the end.
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

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
TARGETS = {
    ("cnn", "dataloader"): 2.5,
    ("cnn", "memory"): 1.6,
    ("cnn", "bare"): 0.6,
    ("lenet5", "dataloader"): 2.5,
}
TWO_WORKERS = 1.8
BATCH_SIZE = 128
SEED = 17
LOOPS = ("trainer", "dataloader", "memory", "bare")


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


def loops(model_name: str, images: int) -> dict[str, Callable[[], float]]:
    """Each loop as a function that trains one epoch and returns images per second."""
    import torch
    from torch import nn, optim
    from torch.nn import functional

    torch.set_num_threads(1)
    from torch.utils.data import DataLoader, Subset

    from hpsearch.components import BUILT_IN
    from hpsearch.config import resolve
    from hpsearch.training import files, vision
    from hpsearch.training.data import load_split
    from hpsearch.training.trainer import train

    split = load_split(validation_images=1_000, seed=SEED, train_images=images)
    config = resolve({("trainer", "model"): model_name, ("trainer", "epochs"): 10_000}, catalog=BUILT_IN, seed=SEED)
    epochs = train(config, split, device="cpu")

    def trainer() -> float:
        return next(epochs).images_per_second

    datasets = vision._datasets
    transforms = __import__("torchvision.transforms", fromlist=["transforms"])
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
    data = datasets.FashionMNIST(files.prepare("fashion-mnist"), train=True, download=False, transform=transform)
    loader = DataLoader(Subset(data, range(images)), batch_size=BATCH_SIZE, shuffle=True)
    loader_model = plain_model(model_name)
    loader_optimizer = optim.Adam(loader_model.parameters(), lr=1e-3)

    def dataloader() -> float:
        loader_model.train()
        start = time.perf_counter()
        for inputs, labels in loader:
            loader_optimizer.zero_grad()
            loss = functional.cross_entropy(loader_model(inputs), labels)
            loss.backward()
            loader_optimizer.step()
        return images / (time.perf_counter() - start)

    inputs = (split.train_images.float() / 255 - split.mean[0]) / split.std[0]
    memory_model = plain_model(model_name)
    memory_optimizer = optim.Adam(memory_model.parameters(), lr=1e-3)

    def memory() -> float:
        memory_model.train()
        start = time.perf_counter()
        for indices in torch.randperm(images).split(BATCH_SIZE):
            memory_optimizer.zero_grad()
            loss = functional.cross_entropy(memory_model(inputs[indices]), split.train_labels[indices])
            loss.backward()
            memory_optimizer.step()
        return images / (time.perf_counter() - start)

    layers = [
        layer.to(memory_format=torch.channels_last) for layer in plain_model(model_name) if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    shapes = {
        "cnn": [(1, 28, 28), (32, 13, 13), (1600,), (64,)],
        "lenet5": [(1, 28, 28), (6, 14, 14), (16, 5, 5), (120,), (84,)],
    }[model_name]
    batches = [torch.randn(BATCH_SIZE, *shape) for shape in shapes]
    batches = [batch.to(memory_format=torch.channels_last) if batch.ndim == 4 else batch for batch in batches]
    # Only the images need no gradient.
    batches = [batch.requires_grad_(number > 0) for number, batch in enumerate(batches)]
    gradients = [torch.randn_like(layer(batch)) for layer, batch in zip(layers, batches, strict=True)]

    def bare() -> float:
        steps = images // BATCH_SIZE
        start = time.perf_counter()
        for _ in range(steps):
            for layer, batch, gradient in zip(layers, batches, gradients, strict=True):
                layer.zero_grad()
                batch.grad = None
                layer(batch).backward(gradient)
        return steps * BATCH_SIZE / (time.perf_counter() - start)

    return {"trainer": trainer, "dataloader": dataloader, "memory": memory, "bare": bare}


def compare(model: str, images: int, rounds: int) -> bool:
    """Print the loops of a model side by side; whether the targets are reached."""
    made = loops(model, images)
    for loop in made.values():
        loop()
    measured = {name: [] for name in made}
    for number in range(rounds):
        # The other way round every second time, so that no loop always follows the same one.
        for name in LOOPS if number % 2 == 0 else reversed(LOOPS):
            measured[name].append(made[name]())
    print(f"\n### {model}, {images:,} images an epoch, {rounds} rounds\n")
    print("| loop | images/s (median) | lowest to highest | trainer against it | wanted | |")
    print("|---|---|---|---|---|---|")
    reached = True
    for name in LOOPS:
        speeds = measured[name]
        ratio = statistics.median(own / other for own, other in zip(measured["trainer"], speeds, strict=True))
        target = TARGETS.get((model, name))
        verdict = "" if target is None else "reached" if ratio >= target else "MISSED"
        reached &= verdict != "MISSED"
        wanted = f"{target:.1f}×" if target else ""
        print(f"| {name} | {statistics.median(speeds):,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} | {ratio:.2f}× | {wanted} | {verdict} |")
    return reached


WORKER = "--worker"


def work(model: str, images: int, rounds: int) -> None:
    """A worker: ready, wait for the word, train, and print images per second over all rounds."""
    trainer = loops(model, images)["trainer"]
    trainer()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for _ in range(rounds):
        trainer()
    print(images * rounds / (time.perf_counter() - start), flush=True)


def workers(number: int, model: str, images: int, rounds: int, environment: dict[str, str]) -> float:
    """Images per second of so many workers together, evaluation included."""
    command = [sys.executable, __file__, WORKER, model, str(images), str(rounds)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(number)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "a worker failed"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def compare_workers(model: str, images: int, rounds: int) -> bool:
    """Print one worker against two; whether the target is reached."""
    ones, twos = [], []
    for _ in range(rounds):
        ones.append(workers(1, model, images, 2, dict(os.environ)))
        twos.append(workers(2, model, images, 2, dict(os.environ)))
    ratio = statistics.median(two / one for one, two in zip(ones, twos, strict=True))
    print(
        f"| {model} | {statistics.median(ones):,.0f} | {statistics.median(twos):,.0f} | {ratio:.2f}× | {TWO_WORKERS}× "
        f"| {'reached' if ratio >= TWO_WORKERS else 'MISSED'} |",
        flush=True,
    )
    return ratio >= TWO_WORKERS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument(WORKER, nargs=3, metavar=("MODEL", "IMAGES", "ROUNDS"), help=argparse.SUPPRESS)
    parser.add_argument("--plain-allocator", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], int(arguments.worker[1]), int(arguments.worker[2]))
        return 0
    images, rounds = (2_560, 3) if arguments.quick else (7_680, 7)
    if arguments.plain_allocator:
        compare("cnn", images, 3)
        compare("lenet5", images, 3)
        return 0
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        # glibc reads them when a process starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    import torch

    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, batch {BATCH_SIZE}, one thread a process")
    reached = compare("cnn", images, rounds)
    reached &= compare("lenet5", images, rounds)
    print("\n### one worker and two, evaluation included\n")
    print("| model | one: images/s | two: images/s | ratio | wanted | |")
    print("|---|---|---|---|---|---|", flush=True)
    for model in ("cnn", "lenet5"):
        reached &= compare_workers(model, images, 1 if arguments.quick else 3)
    print("\n## Without the allocator's settings", flush=True)
    plain = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    subprocess.run([sys.executable, __file__, "--plain-allocator", *(["--quick"] if arguments.quick else [])], env=plain, check=True)
    print("\nall targets reached" if reached else "\nA TARGET WAS MISSED")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
