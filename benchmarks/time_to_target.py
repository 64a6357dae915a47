"""How soon does a search name a configuration that is really good? Live, on the space of studies/cnn.toml, on all cores.

    pip install "ray[tune]"
    python benchmarks/time_to_target.py --seeds 5         # hours; it can be stopped at any time, and the same command continues
    python benchmarks/time_to_target.py --summary         # the table of what is recorded

Three contenders search the same space on the same training and validation images:

    hpsearch  `hpsearch run` of the study with its pruner, one worker a core
    optuna    Optuna in the style of its PyTorch example: torchvision's data set, DataLoader, one process, TPESampler and MedianPruner with
              their defaults
    ray       Ray Tune with OptunaSearch and ASHAScheduler with their defaults, one trial a core, the same training loop

Each builds hpsearch's model, optimizer and schedule, so that a point of the space means the same everywhere. A contender names its best
complete trial so far. The clock starts with its process. Afterwards, each named configuration is trained with fresh seeds by hpsearch's
trainer, out of the clock, until one is found whose mean passes the target. A configuration whose own trial was more than `HOPELESS` below
the target is taken to miss it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hpsearch.search.worker_pool import train_like_a_worker

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "studies" / "cnn.toml"
RECORD = ROOT / "benchmarks" / "data" / "time-to-target.jsonl"
TARGETS = (0.905, 0.915)
HOPELESS = 0.005
FRESH_SEEDS = 3
CORES = os.cpu_count() or 1
PLENTY = 100_000
"""Trials. Time ends each search."""

Values = dict[str, Any]
Report = Callable[[int, float], None]
"""Takes an epoch and its validation accuracy, and may raise an error to end the trial."""


@cache
def study_file() -> Any:
    from hpsearch.config.study_file import load_study_file

    return load_study_file(STUDY)


def hpsearch(folder: Path, seed: int, seconds: float) -> None:
    """Search with hpsearch, and note the complete trials."""
    text = STUDY.read_text().replace("seed        = 1\n", f"seed = {seed}\n").replace("trials     = 40\n", f"epochs = {PLENTY}\n")
    (folder / "cnn.toml").write_text(text)
    started = time.time()
    command = [sys.executable, "-m", "hpsearch", "run", "cnn.toml", "--workers", str(CORES)]
    with (folder / "log").open("w") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as running:
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)
    from hpsearch.storage.records import read_trials
    from hpsearch.storage.workspace import Workspace

    study = Workspace(runs=folder / "runs").open(read_only=True).load("cnn")
    for trial in read_trials(study):
        if trial.state == "complete" and trial.finished is not None:
            note(folder, trial.finished.timestamp() - started, dict(trial.params), trial.value or 0.0)


def optuna_example(folder: Path, seed: int, seconds: float) -> None:
    """Search with Optuna as its PyTorch example does."""
    started = time.monotonic()
    import optuna

    def objective(trial: optuna.Trial) -> float:
        values = study_file().space.sample(trial)

        def report(epoch: int, accuracy: float) -> None:
            trial.report(accuracy, epoch)
            if time.monotonic() - started > seconds:
                trial.study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned

        accuracy = train_by_hand(values, seed, report)
        note(folder, time.monotonic() - started, values, accuracy)
        return accuracy

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, timeout=seconds)


def ray_tune(folder: Path, seed: int, seconds: float) -> None:
    """Search with Ray Tune: OptunaSearch and ASHAScheduler."""
    started = time.time()
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(values: Values) -> None:
        accuracy = train_by_hand(values, seed, lambda epoch, accuracy: tune.report({"accuracy": accuracy, "epoch": epoch}))
        note(folder, time.time() - started, values, accuracy)

    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(space=ray_space, metric="accuracy", mode="max", seed=seed),
            scheduler=ASHAScheduler(time_attr="epoch", max_t=study_file().space.max_epochs),
            num_samples=PLENTY,
            max_concurrent_trials=CORES,
            time_budget_s=seconds,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    ).fit()


def ray_space(trial: Any) -> Values:
    """Draw a point for Ray, which takes the drawn values from the trial."""
    values: Values = study_file().space.sample(trial)
    return {name: value for name, value in values.items() if name not in trial.params}


CONTENDERS = {"hpsearch": hpsearch, "optuna": optuna_example, "ray": ray_tune}


def note(folder: Path, seconds: float, values: Values, accuracy: float) -> None:
    """Note a complete trial."""
    line = json.dumps({"seconds": round(seconds, 2), "values": values, "accuracy": accuracy})
    with (folder / "complete.jsonl").open("a") as file:
        file.write(f"{line}\n")


def train_by_hand(values: Values, seed: int, report: Report) -> float:
    """Train a point of the space as the example of Optuna does, with hpsearch's model, optimizer and schedule."""
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader

    from hpsearch.training.factory import build_model, build_optimizer, build_schedule

    config = config_of(values, 0)
    training, validation = datasets(seed, flip=config.flip)
    model = build_model(config, (1, 28, 28), 10)
    optimizer = build_optimizer(config, model)
    loader = DataLoader(training, batch_size=config.batch_size, shuffle=True)
    schedule = build_schedule(config, optimizer, steps_per_epoch=len(loader))
    accuracy = 0.0
    for epoch in range(1, config.epochs + 1):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in DataLoader(validation, batch_size=1000))
        accuracy = right / len(validation)
        report(epoch, accuracy)
    return accuracy


def datasets(seed: int, *, flip: bool) -> tuple[Any, Any]:
    """Return training and validation images of the split that hpsearch makes with a seed, decoded image by image."""
    import torch
    from torch.utils.data import Subset

    from hpsearch.training.data import download as vision
    from hpsearch.training.data import files
    from hpsearch.training.data.split import load_training_images, validation_indices

    transforms = __import__("torchvision.transforms", fromlist=["transforms"])
    root = files.prepare("fashion-mnist")
    count = study_file().data.validation_images
    held_out = validation_indices(load_training_images("fashion-mnist"), validation_images=count, seed=seed)
    kept = torch.ones(60_000, dtype=torch.bool).index_fill(0, held_out, False).nonzero().flatten()
    plain = [transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))]
    steps = [*([transforms.RandomHorizontalFlip()] if flip else []), *plain]
    data = [vision._datasets.FashionMNIST(root, train=True, transform=transforms.Compose(each)) for each in (steps, plain)]
    return Subset(data[0], kept.tolist()), Subset(data[1], held_out.tolist())


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


def record(**entry: Any) -> None:
    with RECORD.open("ab", buffering=0) as file:
        file.write((json.dumps(entry) + "\n").encode())


def named(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the trials that a search names, each better than the one before."""
    best = -1.0
    for trial in sorted(run["complete"], key=lambda trial: float(trial["seconds"])):
        if trial["accuracy"] > best:
            best = trial["accuracy"]
            yield trial


def fresh_mean(values: Values, *, train: bool) -> float | None:
    """Return the mean accuracy of a configuration over fresh seeds; None if it is not recorded and must not be trained."""
    key = config_of(values, 0).digest
    found = {each["seed"]: each["accuracy"] for each in recorded() if each.get("fresh") == key}
    missing = [seed for seed in range(1, FRESH_SEEDS + 1) if seed not in found]
    if missing and not train:
        return None
    if missing:
        from multiprocessing import get_context

        with get_context("fork").Pool(min(CORES, len(missing))) as pool:
            for seed, accuracy in pool.imap_unordered(_train_fresh, [(values, seed) for seed in missing]):
                found[seed] = accuracy
                record(fresh=key, seed=seed, accuracy=accuracy)
    return statistics.mean(found.values())


def config_of(values: Values, seed: int) -> Any:
    space = study_file().space
    return space.config(space.complete(values), seed=seed)


def _train_fresh(task: tuple[Values, int]) -> tuple[int, float]:
    from hpsearch.config.seeds import derive_seed
    from hpsearch.training.data.split import load_split
    from hpsearch.training.trainer import train

    values, seed = task
    file = study_file()
    split = load_split(validation_images=file.data.validation_images, seed=file.seed)
    *_, last = train(config_of(values, derive_seed(seed, "time to target")), split, device="cpu")
    return seed, last.val_accuracy


def time_to(run: dict[str, Any], target: float, *, train: bool = False) -> float | None:
    """Return the seconds until a search named a configuration that passes a target; infinity if it did not; None if not known yet."""
    for trial in named(run):
        if trial["accuracy"] >= target - HOPELESS:
            mean = fresh_mean(trial["values"], train=train)
            if mean is None:
                return None
            if mean >= target:
                return float(trial["seconds"])
    return math.inf


def summarize() -> None:
    runs = [entry for entry in recorded() if "contender" in entry]
    print(
        "| contender | runs | complete trials | best accuracy | "
        + " | ".join(f"seconds to {100 * target:.1f} %" for target in TARGETS)
        + " |"
    )
    print("|---" * (4 + len(TARGETS)) + "|")
    for contender in CONTENDERS:
        own = [run for run in runs if run["contender"] == contender]
        if own:
            trials = statistics.mean(len(run["complete"]) for run in own)
            best = statistics.mean(max((trial["accuracy"] for trial in run["complete"]), default=0) for run in own)
            times = " | ".join(", ".join(map(_shown, sorted(_known(own, target)))) for target in TARGETS)
            print(f"| {contender} | {len(own)} | {trials:.1f} | {100 * best:.2f} % | {times} |")


def _known(runs: list[dict[str, Any]], target: float) -> list[float]:
    return [seconds for run in runs if (seconds := time_to(run, target)) is not None]


def _shown(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=15.0, help="of each search")
    parser.add_argument("--summary", action="store_true", help="only print what is recorded")
    options = parser.parse_args()
    if not options.summary:
        for seed in range(1, options.seeds + 1):
            for contender in CONTENDERS:
                if not any((run.get("contender"), run.get("seed")) == (contender, seed) for run in recorded()):
                    search(contender, seed, options.minutes)
        train_like_a_worker()  # from here on, this process trains
        for run in [entry for entry in recorded() if "contender" in entry]:
            for target in TARGETS:
                time_to(run, target, train=True)
    summarize()
    return 0


def search(contender: str, seed: int, minutes: float) -> None:
    """Run a contender in a process of its own, and record its complete trials."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        # As an imported module, so that Ray's workers find its functions.
        begin = f"import time_to_target as t; t.CONTENDERS[{contender!r}](t.Path({text!r}), {seed}, {60 * minutes})"
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        subprocess.run([sys.executable, "-c", begin], check=True, env=environment, stdout=subprocess.DEVNULL)
        noted = folder / "complete.jsonl"
        complete = [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []
    machine = f"{platform.machine()}, {CORES} cores, load {os.getloadavg()[0]:.1f}"
    record(contender=contender, seed=seed, minutes=minutes, machine=machine, complete=complete)
    print(contender, seed, f"{len(complete)} complete trials", flush=True)


if __name__ == "__main__":
    sys.exit(main())
