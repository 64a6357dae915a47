"""Claim: on a GPU the trainer is several times as fast as the DataLoader loop, and workers that share a card do more than one.

    python benchmarks/gpu.py            # 200 seconds on an H100 with 16 cores

Every loop trains the same model with Adam, the same loss and batch size on the same number of images,
in a process of its own that lives through all rounds. The processes take turns, one loop at a time, and
the order turns round with every round. A ratio is the median over the rounds of the ratio within a round.

    trainer     `hpsearch.training.trainer.train`; `Epoch.images_per_second`, as a study stores it
    tensors     normalised float tensors that lie on the GPU, indexed by a permutation that is drawn there:
                the least that a loop by hand can do; nothing is claimed against it
    loader      the loop of Optuna's PyTorch example: torchvision's data set, ToTensor, Normalize,
                DataLoader(shuffle=True), each batch moved to the GPU; the number is num_workers

The loops by hand take torch's own layers and settings, which do not repeat; the trainer repeats bit for
bit. No loop's figure contains an evaluation.

Workers that share the card: so many processes train epochs at once, evaluation included; images a second
of all together, and of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from throughput import plain_model

from hpsearch.search.worker_pool import WORKER_ENVIRONMENT

MODELS = ("cnn", "lenet5")
LOADER_WORKERS = (0, 4)
LOOPS = {
    128: ("trainer", "tensors", *(f"loader {number}" for number in LOADER_WORKERS)),
    # A loader's time is each image's, whatever the batch.
    512: ("trainer", "tensors"),
}
SHARED_BY = (1, 2, 4, 8)
SHARED_EPOCHS = 2
"""Epochs that each process trains between two looks at the clock, so that starting together matters little."""
VALIDATION_IMAGES = 10_000
BUSY_BYTES = 2**30
"""Of a card's memory in use before this begins: more is somebody else's work."""
SEED = 17
SERVE = "--serve"


def loop(name: str, model_name: str, batch_size: int, images: int, device: str) -> Callable[[], float]:
    """A loop as a function that trains an epoch and returns images per second."""
    import torch
    from torch import optim
    from torch.nn import functional

    if name.startswith("trainer"):
        return trainer(model_name, batch_size, images, device, whole_epochs=name == "trainer with evaluation")
    batches = on_the_gpu(batch_size, images, device) if name == "tensors" else from_loader(batch_size, images, int(name.split()[1]))
    model = plain_model(model_name).to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> float:
        model.train()
        start = time.perf_counter()
        for inputs, labels in batches():
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        return images / (time.perf_counter() - start)

    return epoch


def trainer(model_name: str, batch_size: int, images: int, device: str, *, whole_epochs: bool) -> Callable[[], float]:
    """hpsearch's own: an epoch, or SHARED_EPOCHS whole ones with their evaluation."""
    from hpsearch.config.components import BUILT_IN
    from hpsearch.config.train_config import resolve
    from hpsearch.training.trainer import train

    settings = {("trainer", "model"): model_name, ("trainer", "epochs"): 10_000, ("trainer", "batch_size"): batch_size}
    epochs = train(resolve(settings, catalog=BUILT_IN, seed=SEED), our_split(images), device=device)

    def some() -> float:
        start = time.perf_counter()
        for _ in range(SHARED_EPOCHS):
            next(epochs)
        return SHARED_EPOCHS * images / (time.perf_counter() - start)

    return some if whole_epochs else lambda: next(epochs).images_per_second


def on_the_gpu(batch_size: int, images: int, device: str) -> Callable[[], Any]:
    """Batches out of tensors that are normalised beforehand and never leave the card."""
    import torch

    split = our_split(images).to(device)
    inputs, labels = (split.train_images.float() / 255 - split.mean[0]) / split.std[0], split.train_labels
    return lambda: ((inputs[indices], labels[indices]) for indices in torch.randperm(images, device=device).split(batch_size))


def from_loader(batch_size: int, images: int, workers: int) -> Callable[[], Any]:
    """Batches as a tutorial makes them, decoded image by image."""
    from torch.utils.data import DataLoader, Subset

    from hpsearch.training.data import download as vision
    from hpsearch.training.data import files

    transforms = __import__("torchvision.transforms", fromlist=["transforms"])
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
    data = vision._datasets.FashionMNIST(files.prepare("fashion-mnist"), train=True, download=False, transform=steps)
    loader = DataLoader(Subset(data, range(images)), batch_size=batch_size, shuffle=True, num_workers=workers)
    return lambda: loader


def our_split(images: int) -> Any:
    from hpsearch.training.data.split import load_split

    return load_split(validation_images=VALIDATION_IMAGES, seed=SEED, train_images=images)


def serve(name: str, model: str, batch_size: int, images: int, device: str) -> None:
    """A loop's process: an epoch to warm up, and then one for each line that comes in."""
    epoch = loop(name, model, batch_size, images, device)
    epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(epoch(), flush=True)


class Contender:
    """A loop in a process of its own, in the environment of a worker."""

    def __init__(self, name: str, model: str, batch_size: int, images: int, device: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, SERVE, name, model, str(batch_size), str(images), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **WORKER_ENVIRONMENT},
        )

    def ready(self) -> None:
        """Wait until it has warmed up."""
        if (answer := self.answer()) != "ready":
            raise SystemExit(f"a loop cannot run: {answer}")

    def go(self) -> None:
        """Have it train."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """What it says of that, once it is over."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Let go of it."""
        self._process.communicate()


def started(names: Sequence[str], *arguments: Any) -> list[Contender]:
    """Contenders that have warmed up."""
    contenders = [Contender(name, *arguments) for name in names]
    for contender in contenders:
        contender.ready()
    return contenders


def compare(model: str, batch_size: int, images: int, rounds: int, device: str) -> None:
    """Print the loops of a model side by side."""
    names = LOOPS[batch_size]
    contenders = dict(zip(names, started(names, model, batch_size, images, device), strict=True))
    measured: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # The other way round every second time, so that no loop always follows the same one.
        for name in names if number % 2 == 0 else reversed(names):
            contenders[name].go()
            measured[name].append(float(contenders[name].answer()))
    for contender in contenders.values():
        contender.end()
    print(f"\n### {model}, batch {batch_size}: {images:,} images an epoch, {rounds} rounds\n")
    print("| loop | images/s (median) | lowest to highest | trainer against it | lowest to highest |")
    print("|---|---|---|---|---|")
    for name, speeds in measured.items():
        ratios = [own / other for own, other in zip(measured["trainer"], speeds, strict=True)]
        print(
            f"| {name} | {statistics.median(speeds):,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} "
            f"| {statistics.median(ratios):.2f}× | {min(ratios):.2f} to {max(ratios):.2f} |",
            flush=True,
        )


def share(model: str, batch_size: int, images: int, rounds: int, device: str) -> None:
    """Print what so many processes on one card do together."""
    contenders = started(["trainer with evaluation"] * max(SHARED_BY), model, batch_size, images, device)
    measured: dict[int, list[float]] = {count: [] for count in SHARED_BY}
    for number in range(rounds):
        for count in SHARED_BY if number % 2 == 0 else reversed(SHARED_BY):
            measured[count].append(transaction(contenders[:count], images))
    for contender in contenders:
        contender.end()
    for count, speeds in measured.items():
        ratios = [own / one for own, one in zip(speeds, measured[1], strict=True)]
        print(
            f"| {model} | {batch_size} | {count} | {statistics.median(speeds):,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} "
            f"| {statistics.median(ratios):.2f}× | {statistics.median(speeds) / count:,.0f} |",
            flush=True,
        )


def transaction(running: Sequence[Contender], images: int) -> float:
    """Images per second of some processes at once."""
    start = time.perf_counter()
    for contender in running:
        contender.go()
    for contender in running:
        contender.answer()
    return len(running) * SHARED_EPOCHS * images / (time.perf_counter() - start)


def describe(device: str) -> Iterator[str]:
    """What this is measured on, and whether the card is at rest."""
    import torch

    name = torch.cuda.get_device_name(device) if device != "cpu" else "no card"
    yield f"{name}, torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    if device == "cpu":
        return
    free, total = torch.cuda.mem_get_info(device)
    yield f"card: {(total - free) / 2**20:,.0f} of {total / 2**20:,.0f} MiB in use before anything was put there, this process's context included"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=utilization.gpu,clocks.sm,power.draw,driver_version", "--format=csv,noheader"]
        yield f"nvidia-smi (use, clock, power, driver): {subprocess.run(query, capture_output=True, text=True).stdout.strip()}"
    if total - free > BUSY_BYTES:
        yield "THE CARD IS NOT AT REST: the figures below are worth little"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=25_000, help="an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=["loops", "shared"])
    parser.add_argument(SERVE, nargs=5, metavar=("LOOP", "MODEL", "BATCH", "IMAGES", "DEVICE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        name, model, batch_size, images, device = arguments.serve
        serve(name, model, int(batch_size), int(images), device)
        return 0
    for line in describe(arguments.device):
        print(line, flush=True)
    if arguments.only != "shared":
        for model in MODELS:
            for batch_size in LOOPS:
                compare(model, batch_size, arguments.images, arguments.rounds, arguments.device)
    if arguments.only != "loops":
        print("\n### workers that share the card, evaluation included\n")
        print("| model | batch | workers | images/s of all (median) | lowest to highest | against one | of each |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for model in MODELS:
            share(model, 128, arguments.images, arguments.rounds, arguments.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
