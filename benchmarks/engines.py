"""Claim: an engine costs next to nothing. 200 trials of one second on two CPUs take within 10 % of 100 seconds, on local workers and on Ray.

Where asha pauses trials, the ideal is the time of the epochs that were trained.

    pip install "ray[tune]" && python benchmarks/engines.py [--trials 200]

A fake trainer serves: four epochs of a quarter of a second each. hpsearch on local workers
with SQLite, on local workers with PostgreSQL, and on Ray with PostgreSQL; beside them Ray Tune with
Optuna's search on the same work, two trials at a time, in the same run. The time is that from the begin
of the first trial to the end of the last, so that nobody's start-up is in it. What each does besides
training is in it: sampling, storing every epoch, asking whether to prune, writing results.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.db_snapshot import stored_trials
from tests.support.fake_trainer import EPOCH_SECONDS
from tests.support.forkserver import storage_environment
from tests.support.postgres_server import Postgres
from tests.support.small_study import NO_IMAGES, STUDY

WORKERS = 2
EPOCHS, SECONDS = 4, 0.25
SPACE = STUDY.replace("epochs = { int = [2, 4] }", f"epochs = {EPOCHS}").replace("epochs = 3\n", "")

ENGINES = (
    "local workers, SQLite",
    "local workers, SQLite, asha",
    "local workers, PostgreSQL",
    "local workers, PostgreSQL, asha",
    "Ray, PostgreSQL",
    "Ray Tune with OptunaSearch",
)

TUNE = """
import os, sys, time
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

trials, workers, epochs, seconds, notes = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]

def train(config):
    begun = time.time()
    for epoch in range(1, epochs + 1):
        time.sleep(seconds)
        tune.report({"accuracy": config["lr"] * epoch})
    with open(notes, "a") as file:
        file.write(f"{begun} {time.time()}\\n")

ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
tune.Tuner(
    tune.with_resources(train, {"cpu": 1}),
    tune_config=tune.TuneConfig(search_alg=OptunaSearch(metric="accuracy", mode="max"), num_samples=trials, max_concurrent_trials=workers),
    run_config=tune.RunConfig(storage_path=os.path.dirname(notes), verbose=0),
    param_space={
        "model": tune.choice(["cnn", "lenet5"]), "optimizer": tune.choice(["sgd", "adam"]),
        "filters1": tune.qrandint(8, 64, 8), "lr": tune.loguniform(1e-3, 1.0),
    },
).fit()
"""


def hpsearch(folder: Path, trials: int, pruner: str, *options: str) -> tuple[float, float]:
    """Seconds from the begin of the first trial to the end of the last, and the seconds of the epochs that were trained."""
    (folder / "small.toml").write_text(SPACE.replace("trials = 8", f"trials = {trials}").replace('kind = "none"', f'kind = "{pruner}"'))
    (folder / "no_images.py").write_text(NO_IMAGES)
    environment = {**os.environ, **storage_environment(folder), "PYTHONPATH": str(ROOT), EPOCH_SECONDS: str(SECONDS)}
    command = [sys.executable, "-m", "tests.support.fake_trainer", "run", "small.toml", "--workers", str(WORKERS), *options]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    found = stored_trials(folder)
    assert len(found) == trials
    assert {trial.state for trial in found} <= {"COMPLETE", "PRUNED" if pruner == "asha" else "COMPLETE"}
    begun = min(trial.attributes["hpsearch:attempts"][0]["at"] for trial in found)
    trained = sum(len(trial.reports) or trial.attributes["hpsearch:rungs"][-1]["share"] for trial in found)
    return max(datetime.fromisoformat(str(trial.ended)).timestamp() for trial in found) - begun, trained * SECONDS


def ray_tune(folder: Path, trials: int) -> float:
    """The same of Ray Tune."""
    notes = folder / "notes"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", TUNE, *map(str, (trials, WORKERS, EPOCHS, SECONDS, notes))]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    spans = [tuple(map(float, line.split())) for line in notes.read_text().splitlines()]
    assert len(spans) == trials
    return max(end for _, end in spans) - min(begin for begin, _ in spans)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--only", default="", help="only the rows whose name has this text")
    options = parser.parse_args()
    trials = options.trials
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print("| engine | seconds | ideal | beyond the ideal |\n| --- | --- | --- | --- |")
    with Postgres() as server:
        for name in filter(lambda name: options.only in name, ENGINES):
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text)
                if "PostgreSQL" in name:
                    (folder / "storage").write_text(server.database())
                begin = time.monotonic()
                if name.startswith("Ray Tune"):
                    taken, trained = ray_tune(folder, trials), trials * EPOCHS * SECONDS
                else:
                    pruner = "asha" if name.endswith("asha") else "none"
                    taken, trained = hpsearch(folder, trials, pruner, *(["--engine", "ray"] if name.startswith("Ray") else []))
                whole, ideal = time.monotonic() - begin, trained / WORKERS
                print(f"| {name} | {taken:.1f} ({whole:.1f} with start and end) | {ideal:.1f} | {taken / ideal - 1:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
