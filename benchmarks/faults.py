"""Claim: nothing is ever lost. Kills, signals, races, a full disk and damaged checkpoints, counted.

Runs the experiments one after another, each on a study of its own, saves what each found as it
ends, and prints one table; exit code 1 when a row is missed. Most processes are forked from one
that has everything loaded (tests/nursery.py), those whose start-up is measured are started afresh.

    python benchmarks/faults.py [--quick] [--seed N] [--only NAME] [--storage postgresql] [--results FILE]

With `--storage postgresql` all studies lie on a server of the benchmark's own, which is crashed too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.db_snapshot import PATIENCE, Ledger, count_studies, fresh, repeated_epochs, run_to_end, stored, tracebacks, wait_until  # noqa: E402  # the checkout first
from tests.support.fake_trainer import EPOCH_NOTES, EPOCH_SECONDS  # noqa: E402  # the checkout first
from tests.support.forkserver import Forked, Nursery  # noqa: E402  # the checkout first
from tests.support.postgres_server import STORAGES, Postgres  # noqa: E402  # the checkout first
from tests.support.small_study import NO_IMAGES, STUDY  # noqa: E402  # the checkout first

REAL_STUDY = """
name = "small"
seed = 3

[data]
validation_images = 500
train_images = {images}

[budget]
trials = 8

[sampler]
startup_trials = 4

[pruner]
kind = "median"
startup_trials = 2
warmup_epochs = 1

[space]
model = {{ choices = ["cnn", "lenet5"] }}
optimizer = {{ choices = ["sgd", "adam"] }}
epochs = {{ int = [{epochs}] }}
dropout = {{ float = [0.0, 0.5] }}

[space.cnn]
filters1 = 8
filters2 = 16
dense = 32

[space.sgd]
lr = {{ float = [1e-2, 2e-1], log = true }}
momentum = {{ float = [0.5, 0.95] }}

[space.adam]
lr = {{ float = [3e-4, 1e-2], log = true }}
"""
UNPRUNED_STUDY = REAL_STUDY.replace('kind = "median"\nstartup_trials = 2\nwarmup_epochs = 1', 'kind = "none"')


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    fault: str
    count: str
    wanted: str
    found: str
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much is done, by which random numbers, where."""

    quick: bool
    seed: int
    folder: Path
    server: Postgres | None = None
    """Whose databases the studies lie in; by default each in a SQLite file of its own."""

    def of(self, full: int, quick: int) -> int:
        """A count."""
        return quick if self.quick else full

    def random(self, *names: object) -> random.Random:
        """Random numbers for one purpose."""
        return random.Random("/".join(map(str, (self.seed, *names))))

    def study(self, name: str, text: str = STUDY, **changes: str) -> Path:
        """A new folder with a study file; `trials="20"` replaces the value of a key."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for key, value in changes.items():
            text, times = re.subn(f"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
            assert times, f"the study has no key {key}"
        (folder / "small.toml").write_text(text)
        (folder / "no_images.py").write_text(NO_IMAGES)
        if self.server is not None:
            (folder / "storage").write_text(self.server.database())
        return folder


# 1. Kills


@dataclass
class Kills:
    """What so many kills in a row did."""

    done: dict[str, int] = field(default_factory=lambda: {"worker": 0, "supervisor": 0, "everything": 0})
    workers: int = 0
    stopped: int = 0
    wrong: list[int] = field(default_factory=list)


def kill_at_random(nursery: Nursery, folder: Path, setting: Setting, count: int, life: float, epochs: tuple[float, ...]) -> Row:
    """Kill so often, then let the study end, and count."""
    draw = setting.random("kills", folder.name)
    ledger, kills, notes = Ledger(), Kills(), folder / "notes"
    budget = setting.of(100, 20) if len(epochs) > 1 else 12
    supervisor: Forked | None = None
    while sum(kills.done.values()) < count:
        if supervisor is None or supervisor.poll() is not None:
            if supervisor is not None and supervisor.returncode not in (-signal.SIGKILL, None):
                budget += 50 if supervisor.returncode == 0 else 0
                kills.stopped += supervisor.returncode == 1
                kills.wrong += [supervisor.returncode] if supervisor.returncode not in (0, 1) else []
                if len(kills.wrong) > 5:
                    break
            environment = {EPOCH_SECONDS: str(draw.choice(epochs)), EPOCH_NOTES: str(notes)}
            options = ("--workers", "2", "--trials", str(budget))
            supervisor = nursery.start(folder, "run", "small.toml", *options, said=folder / "said", **environment)
        time.sleep(draw.uniform(0, life))
        kind = draw.choices(("worker", "supervisor", "everything"), (6, 2, 2))[0]
        alive = nursery.alive()
        workers = [pid for pid, arguments in alive.items() if arguments[0] == "worker"]
        victims = [draw.choice(workers)] if kind == "worker" and workers else [supervisor.pid] if kind == "supervisor" else list(alive)
        if not victims or (kind == "worker" and not workers) or not nursery.kill(*victims):
            continue
        kills.done[kind] += 1
        # The workers of a supervisor that is gone leave by themselves, sometimes while the next run begins.
        kills.workers += len(workers) if kind != "worker" else 1
        if kind == "supervisor" and draw.random() < 0.5 and not wait_until(lambda: not nursery.alive(), 5.0):
            kills.wrong.append(5)
        ledger.look(folder)
    nursery.kill(*nursery.alive())
    wait_until(lambda: not nursery.alive())
    code = run_to_end(nursery, folder, "--trials", str(budget), **{EPOCH_SECONDS: "0", EPOCH_NOTES: str(notes)})
    trials = ledger.look(folder)
    states = {state: sum(trial.state == state for trial in trials) for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")}
    odd = [trial.number for trial in trials if [e["number"] for e in trial.epochs] != [step for step, _ in trial.reports]]
    odd += [trial.number for trial in trials if [e["number"] for e in trial.epochs] != list(range(1, len(trial.epochs) + 1))]
    begun, again, furthest = repeated_epochs(notes)
    found = (
        f"{len(ledger.lost)} lost or changed, {states['RUNNING']} RUNNING, {states['WAITING']} WAITING, "
        f"{len(trials)} of {budget} trials ({states['FAIL']} failed), {len(odd)} with epochs twice or missing; "
        f"{again} of {begun:,} epochs begun again, {furthest} a trial and kill at most; {tracebacks(folder)} tracebacks; "
        f"runs that gave up: {kills.stopped}; last run's exit code {code}"
    )
    ok = not (ledger.lost or odd or states["RUNNING"] or states["WAITING"] or kills.wrong or tracebacks(folder))
    ok = ok and len(trials) == budget and code == 0 and furthest <= 1 and again <= kills.workers
    said = ", ".join(f"{number} {kind}" for kind, number in kills.done.items())
    return Row(
        fault=f"kill -9, {'formula' if len(epochs) > 1 else 'real trainer'}",
        count=f"{sum(kills.done.values())} ({said})",
        wanted="0 lost, 0 twice, 0 RUNNING, exactly N trials, ≤ 1 epoch a kill",
        found=found,
        ok=ok,
    )


STOCK = """
import sys, time, optuna
from hpsearch.config.train_config import resolve
from hpsearch.config.components import BUILT_IN
from tests.support.fake_trainer import accuracy
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.RDBStorage(sys.argv[1], engine_kwargs={"connect_args": {"timeout": 60}})
study = optuna.create_study(study_name="stock", storage=storage, load_if_exists=True, direction="maximize")
def objective(trial):
    name = trial.suggest_categorical("optimizer", ["sgd", "adam"])
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    epochs = trial.suggest_int("epochs", 2, 4)
    config = resolve({("trainer", "optimizer"): name, ("optimizer", "lr"): lr}, catalog=BUILT_IN, seed=trial.number)
    for epoch in range(1, epochs + 1):
        time.sleep(0.1)
        trial.report(accuracy(config, epoch), epoch)
    return accuracy(config, epochs)
study.optimize(objective, n_trials=1000)
"""


def stock_row(setting: Setting) -> Row:
    """`study.optimize` with the same formula, killed as a whole."""
    folder, draw, count = setting.study("stock"), setting.random("stock"), setting.of(20, 3)
    url = f"sqlite:///{folder / 'stock.db'}"
    for _ in range(count):
        with (folder / "said").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", STOCK, url], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=said, stderr=said
            )
        before = _rows(folder / "stock.db")
        wait_until(lambda before=before, process=process: _rows(folder / "stock.db") > before or process.poll() is not None, 60)
        time.sleep(draw.uniform(0, 1))
        process.kill()
        process.wait()
    with closing(sqlite3.connect(folder / "stock.db")) as connection:
        zombies, trials = (
            connection.execute(f"SELECT count(*) FROM trials {where}").fetchone()[0] for where in ("WHERE state = 'RUNNING'", "")
        )
    found = f"{zombies} of {trials} trials RUNNING for ever"
    return Row(fault="the same, stock study.optimize", count=f"{count}", wanted="(for comparison)", found=found, ok=True)


def _rows(database: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.Error:
        return 0


def kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1."""
    with Nursery() as nursery:
        folder = setting.study("kills", epochs="{ int = [2, 6] }")
        yield kill_at_random(nursery, folder, setting, setting.of(500 if setting.server is None else 150, 15), 1.5, (0.0, 0.01, 0.05, 0.2))
    if setting.server is None:
        yield stock_row(setting)


def real_kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1 with the real trainer."""
    with Nursery("real") as nursery:
        folder = setting.study("real-kills", REAL_STUDY.format(images=2000, epochs="3, 5"))
        yield kill_at_random(nursery, folder, setting, setting.of(30, 4), 3.0, (0.0,))


# 2. Identical after kills


def identical(setting: Setting) -> Iterator[Row]:
    """Experiment 2."""
    count = setting.of(20, 3)
    for pruner, trainer in (("none", "formula"), ("median", "real"), ("percentile", "formula")):
        if setting.quick and pruner == "median":
            continue
        section = f'[pruner]\nkind = "{pruner}"' + ("" if pruner == "none" else "\nstartup_trials = 3\nwarmup_epochs = 1")
        text = REAL_STUDY.format(images=1000, epochs="2, 4") if trainer == "real" else STUDY.replace('[pruner]\nkind = "none"', section)
        trials = "10" if trainer == "real" else str(setting.of(40, 12))
        with Nursery(trainer) as nursery:
            yield _identical(nursery, setting, text, trials, pruner, trainer, count)


def _identical(nursery: Nursery, setting: Setting, text: str, trials: str, pruner: str, trainer: str, count: int) -> Row:
    draw = setting.random("identical", pruner)
    whole, broken = (setting.study(f"{pruner}-{name}", text, trials=trials) for name in ("whole", "broken"))
    seconds = {EPOCH_SECONDS: "0.03"}
    run_to_end(nursery, whole, "--workers", "1", **seconds, **{EPOCH_NOTES: str(whole / "notes")})
    begun = len((whole / "notes").read_text().splitlines())
    # So many epochs lie between two kills, on average, that the study lasts for all of them.
    points = sorted(draw.sample(range(1, begun), min(count, begun - 1)))
    points += [draw.choice(points) for _ in range(count - len(points))]
    notes, killed = broken / "notes", 0

    def noted() -> list[str]:
        return sorted(set(notes.read_text().splitlines())) if notes.exists() else []

    for point in sorted(points):
        run = nursery.start(broken, "run", "small.toml", "--workers", "1", said=broken / "said", **seconds, **{EPOCH_NOTES: str(notes)})
        before = notes.stat().st_size if notes.exists() else 0
        wait_until(
            lambda point=point, before=before, run=run: run.poll() is not None or (len(noted()) >= point and notes.stat().st_size > before)
        )
        time.sleep(draw.uniform(0, 0.12 if trainer == "formula" else 0.4))
        killed += nursery.kill(*nursery.alive()) > 0
        wait_until(lambda: not nursery.alive())
    code = run_to_end(nursery, broken, "--workers", "1", **seconds)
    pairs = list(zip(stored(whole), stored(broken), strict=False))
    same = sum(one.measured() == other.measured() for one, other in pairs)
    hashes = {
        hashlib.sha256(json.dumps([t.measured() for t in stored(each)], default=str).encode()).hexdigest()[:12] for each in (whole, broken)
    }
    pruned = sum(one.state == "PRUNED" for one, _ in pairs)
    return Row(
        fault=f"resumed after kills, pruner {pruner}, {trainer}",
        count=f"{killed} kills",
        wanted="the table of trials and the weights' hashes of the run never killed",
        found=f"{same} of {trials} trials identical, {pruned} of them pruned; tables {' and '.join(sorted(hashes))}",
        ok=same == int(trials) and len(hashes) == 1 and killed == count and code == 0,
    )


# 3. How fast


def noticed(setting: Setting) -> Iterator[Row]:
    """Experiment 3: a dead worker's trial is in the queue again, and a resumed trial trains again."""
    count, times = setting.of(20, 3), []
    folder, draw = setting.study("noticed", trials="400", epochs="{ int = [3, 4] }"), setting.random("noticed")
    with Nursery() as nursery:
        while len(times) < count:
            nursery.start(folder, "run", "small.toml", "--workers", "1", said=folder / "said", **{EPOCH_SECONDS: "0.3"})
            for _ in range(2):  # three deaths in ten seconds would stop the run
                begun = len(stored(folder))
                wait_until(lambda begun=begun: len(stored(folder)) > begun and stored(folder)[-1].state == "RUNNING")
                time.sleep(draw.uniform(0.2, 0.8))
                victims = [pid for pid, arguments in nursery.alive().items() if arguments[0] == "worker"]
                deaths = {trial.number for trial in stored(folder) if trial.state == "RUNNING"}
                nursery.kill(*victims)
                killed = time.monotonic()

                def requeued(deaths: set[int] = deaths) -> bool:
                    return any(
                        t.number in deaths and (t.state != "RUNNING" or len(t.attributes["hpsearch:attempts"]) > 1) for t in stored(folder)
                    )

                wait_until(requeued, 30)
                times.append(time.monotonic() - killed)
            nursery.kill(*nursery.alive())
            wait_until(lambda: not nursery.alive())
    median = statistics.median(times)
    yield Row(
        fault="a worker dies: its trial is back in the queue",
        count=f"{len(times)}",
        wanted="median ≤ 1 s",
        found=f"median {median:.2f} s, longest {max(times):.2f} s",
        ok=median <= 1,
    )
    yield _trains_again(setting)


def _trains_again(setting: Setting) -> Row:
    count, draw = setting.of(10, 2), setting.random("resume")
    folder = setting.study("resume", UNPRUNED_STUDY.format(images=4000, epochs="8, 9"))
    notes = folder / "notes"

    def size() -> int:
        return notes.stat().st_size if notes.exists() else 0

    beyond, imports = [], []
    for _ in range(count):
        run = fresh(folder, "run", "small.toml", "--workers", "1", trainer="real", **{EPOCH_NOTES: str(notes)})
        before = size()
        wait_until(lambda before=before: size() > before)
        time.sleep(draw.uniform(0, 1))
        before, killed = size(), time.monotonic()
        psutil.Process(run.pid).children()[0].kill()
        wait_until(lambda before=before: size() > before)
        again = time.monotonic() - killed
        run.terminate()
        run.wait(PATIENCE)
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        imports.append(time.monotonic() - started)
        beyond.append(again - imports[-1])
    median = statistics.median(beyond)
    return Row(
        fault="a worker dies: its trial trains again",
        count=f"{count}",
        wanted="median ≤ 2 s and torch's import",
        found=f"torch's import {statistics.median(imports):.2f} s, and beyond it median {median:.2f} s, longest {max(beyond):.2f} s",
        ok=median <= 2,
    )


# 4. SIGTERM


def terminated(setting: Setting) -> Iterator[Row]:
    """Experiment 4."""
    from hpsearch.training.checkpoint import RunIdentity, load

    count, draw = setting.of(30, 3), setting.random("terminated")
    folder = setting.study("terminated", UNPRUNED_STUDY.format(images=12_000, epochs="4, 8"), trials="300")
    codes, seconds, wrong, interrupted, loaded = [], [], [], 0, 0
    for _ in range(count):
        run = fresh(folder, "run", "small.toml", "--workers", "2", trainer="real")
        time.sleep(draw.uniform(0, 20))
        run.terminate()
        asked = time.monotonic()
        codes.append(run.wait(PATIENCE))
        seconds.append(time.monotonic() - asked)
        for trial in stored(folder):
            if trial.state == "RUNNING":
                wrong.append(f"{trial.number} is RUNNING")
            if trial.state != "WAITING" or "hpsearch:attempts" not in trial.attributes:
                continue
            interrupted += 1
            facts = json.loads(trial.attributes.get("hpsearch:run", "null"))
            identity = facts and RunIdentity(owner=f"small/{trial.number}", config=facts["digest"], split=facts["split_hash"])
            content = load(folder / "runs" / "small" / "trials" / f"{trial.number:05d}" / "checkpoint", identity) if identity else None
            # Its last epoch may be on disk and not yet in the database, never the other way round.
            whole = len(content["epochs"]) if content else 0
            loaded += content is not None
            if not len(trial.epochs) <= whole <= len(trial.epochs) + 1:
                wrong.append(f"{trial.number} has {len(trial.epochs)} epochs stored and {whole} in its checkpoint")
    # A signal before the first line of the program ends it by itself, which a shell shows as 143 too.
    right = sum(code in (143, -signal.SIGTERM) for code in codes)
    yield Row(
        fault="SIGTERM at a random moment, real trainer",
        count=f"{count}",
        wanted=f"{count} of {count} end in ≤ 10 s with 143; checkpoints load",
        found=f"{right} with 143 ({codes.count(-signal.SIGTERM)} before it listened), longest {max(seconds):.1f} s; "
        f"{interrupted} interrupted trials, {loaded} with a checkpoint that loads, {len(wrong)} wrong{': ' + wrong[0] if wrong else ''}; "
        f"{tracebacks(folder)} tracebacks",
        ok=right == count and max(seconds) <= 10 and not wrong and not tracebacks(folder),
    )


# 5. Launchers at once


def launchers(setting: Setting) -> Iterator[Row]:
    """Experiment 5."""
    rounds = setting.of(20 if setting.server else 10, 2)
    with Nursery() as nursery:
        joined, exact, failed = 0, 0, ""
        for number in range(rounds):
            folder = setting.study(f"eight-{number}")
            runs = [
                nursery.start(
                    folder, "run", "small.toml", "--workers", "1", "--trials", "16", said=folder / "said", **{EPOCH_SECONDS: "0.02"}
                )
                for _ in range(8)
            ]
            joined += sum(run.wait(PATIENCE) == 0 for run in runs)
            exact += count_studies(folder) == 1 and [trial.state for trial in stored(folder)] == ["COMPLETE"] * 16
            if joined < 8 * (number + 1) and not failed:
                failed = next((line for line in (folder / "said").read_text().splitlines() if line.startswith("error")), "?")
        yield Row(
            fault="eight launchers on an empty store",
            count=f"{rounds} rounds",
            wanted=f"{8 * rounds} of {8 * rounds} join one study",
            found=f"{joined} ended well; {exact} rounds with one study of exactly 16 trials{'; ' + failed if failed else ''}",
            ok=joined == 8 * rounds and exact == rounds,
        )
        exact, sizes = 0, []
        for number in range(rounds):
            size = setting.random("budget", number).randint(1, 20)
            folder = setting.study(f"two-{number}", trials=str(size))
            two = [
                nursery.start(folder, "run", "small.toml", "--workers", "2", said=folder / "said", **{EPOCH_SECONDS: "0.02"}) for _ in "ab"
            ]
            codes = [run.wait(PATIENCE) for run in two]
            exact += codes == [0, 0] and [trial.state for trial in stored(folder)] == ["COMPLETE"] * size
            sizes.append(len(stored(folder)) - size)
        yield Row(
            fault="two launchers, a budget of N (1 to 20)",
            count=f"{rounds} rounds",
            wanted="exactly N",
            found=f"{exact} of {rounds} exact; at most {max(sizes)} too many",
            ok=exact == rounds,
        )


# 6. A disk that fills


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of that size at the folder; False where it cannot be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = shutil.which("mount") and os.geteuid() == 0
    done = mounted and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield bool(done and done.returncode == 0)
    finally:
        if done and done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def full_disk(setting: Setting) -> Iterator[Row]:
    """Experiment 6: room runs out at a random byte, in a checkpoint, the database or a log."""
    count, draw = setting.of(20, 3), setting.random("disk")
    for trainer in ("formula", "real") if not setting.quick else ("formula",):
        outcomes: list[str] = []
        with Nursery(trainer) as nursery:
            for number in range(count if trainer == "formula" else setting.of(10, 1)):
                text = STUDY if trainer == "formula" else REAL_STUDY.format(images=1000, epochs="2, 3")
                folder = setting.study(f"disk-{trainer}-{number}", text)
                with small_disk(folder / "runs", "64m") as mounted:
                    if not mounted:
                        yield Row(fault="a disk that fills", count="0", wanted="-", found="no tmpfs can be mounted here: skipped", ok=True)
                        return
                    outcomes.append(_fill(nursery, folder, draw, trainer))
        good, enough = outcomes.count("ok"), outcomes.count("enough")
        bad = sorted({*outcomes} - {"ok", "enough"})
        yield Row(
            fault=f"a disk that fills, {trainer}",
            count=f"{len(outcomes)}",
            wanted="exit 1 with one clear line; continues; the database is sound",
            found=f"{good} of {len(outcomes) - enough} so, and {enough} had just enough room{'; else: ' + '; '.join(bad) if bad else ''}",
            ok=good + enough == len(outcomes) and good > 0,
        )


def _fill(nursery: Nursery, folder: Path, draw: random.Random, trainer: str) -> str:
    """Run with little room, then with enough; `ok`, `enough` where it was at first, or what was not as wanted."""
    runs = folder / "runs"
    run_to_end(nursery, folder, "--workers", "1", "--trials", "1")
    ledger = Ledger()
    ledger.look(folder)
    room = draw.randint(0, 160_000 if trainer == "formula" else 1_500_000)
    filler = runs / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(runs).f_bavail * os.statvfs(runs).f_frsize
        file.write(bytes(max(0, free - room)))
    (folder / "said").write_text("")
    code = run_to_end(nursery, folder, "--workers", "2")
    said = (folder / "said").read_text()
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    wrong = []
    if code == 0:
        return "enough" if len(stored(folder)) == 8 else "exit 0, but not all trials are there"
    if code != 1 or len(errors) != 1 or "Traceback" in said or "hint:" not in said:
        wrong.append(f"exit {code}, {errors or said[-200:]!r}")
    filler.unlink()
    again = run_to_end(nursery, folder, "--workers", "2")
    trials = ledger.look(folder)
    if again != 0 or [trial.state for trial in trials if trial.state not in ("COMPLETE", "PRUNED")] or len(trials) != 8:
        wrong.append(f"then exit {again} and {[trial.state for trial in trials]}")
    if ledger.lost:
        wrong.append("a finished trial changed")
    with closing(sqlite3.connect(runs / "hpsearch.db")) as connection:
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if sound != "ok":
        wrong.append(sound)
    return " and ".join(wrong) or "ok"


# 7. Damaged checkpoints


def damaged(setting: Setting) -> Iterator[Row]:
    """Experiment 7."""
    import logging

    import torch

    from hpsearch.training.checkpoint import RunIdentity, load, save

    log = logging.getLogger("hpsearch")
    path, draw = setting.study("damaged") / "checkpoint", setting.random("damaged")
    me = RunIdentity(owner="small/0", config="c", split="s")
    save(path, me, {"epochs": [{"number": 1}], "model": {"weight": torch.arange(300.0)}})
    good = path.read_bytes()
    assert load(path, me) is not None
    step = setting.of(1, 40)

    def is_taken(content: bytes) -> bool:
        path.write_bytes(content)
        # Thousands of warnings are not to be read; and who runs this beside other tests must find the logger as it was.
        log.disabled = True
        try:
            return load(path, me) is not None
        finally:
            log.disabled = False

    cuts = range(0, len(good), step)
    taken = sum(is_taken(good[:cut]) for cut in cuts)
    yield Row(
        fault="a checkpoint cut short", count=f"{len(cuts)}, every {step} bytes", wanted="0 loaded", found=f"{taken} loaded", ok=not taken
    )
    flips, taken = setting.of(5000, 300), 0
    for _ in range(flips):
        bad = bytearray(good)
        for workspace in draw.sample(range(len(good)), draw.choice((1, 1, 1, 2, 8))):
            bad[workspace] ^= draw.randint(1, 255)
        taken += is_taken(bytes(bad))
    yield Row(fault="bytes of a checkpoint flipped", count=f"{flips}", wanted="0 loaded", found=f"{taken} loaded", ok=not taken)


# 9. Two thousand trials


def many_trials(setting: Setting) -> Iterator[Row]:
    """Experiment 9."""
    total, first = setting.of(2000, 120), setting.of(200, 60)
    folder = setting.study("many", trials=str(total))
    run = fresh(folder, "run", "small.toml", "--workers", "1", trainer="formula")
    looks: list[tuple[int, float, int, int, int, int]] = []
    database = folder / "runs" / "hpsearch.db"
    while run.poll() is None:
        time.sleep(0.5)
        ended = _rows(database)
        try:
            supervisor = psutil.Process(run.pid)
            (worker,) = supervisor.children()
            both = [(each.memory_info().rss, each.num_fds()) for each in (worker, supervisor)]
        except (psutil.Error, ValueError):
            continue
        if not both[0][0]:  # it has ended, and only waits to be noticed
            continue
        looks.append((ended, time.monotonic(), *both[0], *both[1]))
    late = [look for look in looks if look[0] >= first]
    start, end = late[0], late[-1]
    growth = [end[index] / start[index] - 1 for index in (2, 4)]
    files = [end[index] - start[index] for index in (3, 5)]
    trials = stored(folder)
    yield Row(
        fault=f"{total:,} trials in one run",
        count=f"{len(trials)}",
        wanted=f"memory grows < 5 % after the first {first}, no descriptors leak",
        found=f"worker {start[2] / 1e6:.0f} MB {growth[0]:+.1%}, supervisor {start[4] / 1e6:.0f} MB {growth[1]:+.1%}; "
        f"descriptors {files[0]:+d} and {files[1]:+d}; "
        f"{_pace(looks, setting.of(100, 30)):.3f} s a trial near trial {setting.of(100, 30)}, {_pace(looks, total - 20):.3f} s near {total}",
        ok=max(growth) < 0.05 and max(files) <= 0 and len(trials) == total and run.returncode == 0,
    )


def _pace(looks: list[tuple[int, float, int, int, int, int]], trial: int) -> float:
    near = [(look[0], look[1]) for look in looks if abs(look[0] - trial) <= max(20, trial // 20)] or [(0, 0.0), (1, 0.0)]
    return (near[-1][1] - near[0][1]) / max(1, near[-1][0] - near[0][0])


# On a server


def crashes(setting: Setting) -> Iterator[Row]:
    """The server crashes again and again under one run, and is away for half a minute."""
    if setting.server is None:
        return
    count, outage, draw = setting.of(10, 2), setting.of(30, 4), setting.random("crashes")
    trials = setting.of(120, 24)
    folder = setting.study("crashes", trials=str(trials), epochs="{ int = [2, 6] }")
    notes, ledger = folder / "notes", Ledger()
    with Nursery() as nursery:
        environment = {EPOCH_SECONDS: "0.3", EPOCH_NOTES: str(notes)}
        run = nursery.start(folder, "run", "small.toml", "--workers", "3", said=folder / "said", **environment)
        wait_until(lambda: any(trial.finished for trial in stored(folder)))
        done = 0
        for away in [*(draw.uniform(0, 2) for _ in range(count)), outage]:
            time.sleep(draw.uniform(0.5, 3))
            if run.poll() is not None:
                break
            ledger.look(folder)
            setting.server.stop("immediate")
            time.sleep(away)
            setting.server.start()
            done += 1
        code = run.wait(PATIENCE)
    found = ledger.look(folder)
    states = {state: sum(trial.state == state for trial in found) for state in ("RUNNING", "WAITING", "FAIL")}
    odd = [trial.number for trial in found if [each["number"] for each in trial.epochs] != [step for step, _ in trial.reports]]
    begun, again, _ = repeated_epochs(notes)
    dead = (folder / "said").read_text().count("a worker died")
    yield Row(
        fault="PostgreSQL crashes under a run",
        count=f"{done - 1} crashes, 1 outage of {outage} s",
        wanted="0 lost, 0 twice, 0 RUNNING, 0 workers dead, exactly N trials, the run goes on by itself",
        found=f"{len(ledger.lost)} lost or changed, {states['RUNNING']} RUNNING, {states['WAITING']} WAITING, "
        f"{len(found)} of {trials} trials ({states['FAIL']} failed), {len(odd)} with epochs twice or missing; "
        f"{again} of {begun:,} epochs begun again; {dead} workers died; {tracebacks(folder)} tracebacks; exit code {code}",
        ok=not (ledger.lost or odd or any(states.values()) or dead or tracebacks(folder))
        and len(found) == trials
        and code == 0
        and done == count + 1,
    )


EXPERIMENTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "kills": kills,
    "real_kills": real_kills,
    "identical": identical,
    "noticed": noticed,
    "terminated": terminated,
    "launchers": launchers,
    "full_disk": full_disk,
    "damaged": damaged,
    "many_trials": many_trials,
    "crashes": crashes,
}


ON_A_SERVER = ("kills", "real_kills", "identical", "noticed", "crashes", "launchers")
"""Those that have to do with the storage, and can be done to one on a server."""


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| fault | count | wanted | found | |", "|---|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {row.fault} | {row.count} | {row.wanted} | {row.found} | {'ok' if row.ok else 'MISSED'} |" for row in rows)]
    )


def main() -> int:
    """Run the experiments; 1 if a row is missed."""
    parser = argparse.ArgumentParser(description="Count what faults do to a study.")
    parser.add_argument("--quick", action="store_true", help="a small version of each, in a few minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(EXPERIMENTS), action="append")
    parser.add_argument("--storage", choices=STORAGES, default=STORAGES[0])
    parser.add_argument("--results", type=Path, help="a JSON file that gains each row as it is found")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="faults") as folder, ExitStack() as stack:
        server = None if options.storage == "sqlite" else stack.enter_context(Postgres(connections=300))
        setting = Setting(quick=options.quick, seed=options.seed, folder=Path(folder), server=server)
        for name in options.only or (EXPERIMENTS if server is None else ON_A_SERVER):
            started = time.monotonic()
            for row in EXPERIMENTS[name](setting):
                rows.append(row)
                print(f"{'ok    ' if row.ok else 'MISSED'} {row.fault}: {row.found}", file=sys.stderr, flush=True)
                if options.results:
                    with options.results.open("a") as file:
                        file.write(json.dumps({"experiment": name, **asdict(row)}) + "\n")
            print(f"       {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            if not all(row.ok for row in rows) and os.environ.get("FAULTS_KEEP"):
                shutil.copytree(folder, os.environ["FAULTS_KEEP"], dirs_exist_ok=True)
    print(table(rows))
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(main())
