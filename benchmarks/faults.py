"""Claim: nothing is ever lost. Kills, signals, races, a full disk and damaged checkpoints, counted.

Runs the experiments one after another, each on a study of its own, saves what each found as it
ends, and prints one table; exit code 1 when a row is missed. Most processes are forked from one
that has everything loaded (tests/support/forkserver.py); those whose start-up is measured are started afresh.

    python benchmarks/faults.py [--quick] [--seed N] [--only NAME] [--storage postgresql] [--results FILE]

With `--storage postgresql` all studies lie on a server of the benchmark's own, which is crashed too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.db_snapshot import RUN_TIMEOUT, FinishedTrials, repeated_epochs, start_process, stored_trials, tracebacks, wait_until
from tests.support.fake_trainer import EPOCH_LOG, EPOCH_SECONDS
from tests.support.fault_experiments import EXPERIMENTS as SHARED_EXPERIMENTS
from tests.support.fault_experiments import REAL_STUDY, Row, Setting
from tests.support.forkserver import ForkServer
from tests.support.postgres_server import STORAGES, Postgres

UNPRUNED_STUDY = REAL_STUDY.replace('kind = "median"\nstartup_trials = 2\nwarmup_epochs = 1', 'kind = "none"')


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
    """`study.optimize` with the same fake trainer, killed as a whole."""
    folder, draw, count = setting.study("stock"), setting.random("stock"), setting.of(20, 3)
    url = f"sqlite:///{folder / 'stock.db'}"
    for _ in range(count):
        with (folder / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", STOCK, url], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
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


def kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1, and stock Optuna for comparison."""
    yield from SHARED_EXPERIMENTS["kills"](setting)
    if setting.server is None:
        yield stock_row(setting)


def _rows(database: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.Error:
        return 0


# 3. How fast


def noticed(setting: Setting) -> Iterator[Row]:
    """Experiment 3: a dead worker's trial is in the queue again, and a resumed trial trains again."""
    count, times = setting.of(20, 3), []
    folder, draw = setting.study("noticed", trials="400", epochs="{ int = [3, 4] }"), setting.random("noticed")
    with ForkServer() as forkserver:
        while len(times) < count:
            forkserver.start(folder, "run", "small.toml", "--workers", "1", output=folder / "output", **{EPOCH_SECONDS: "0.3"})
            for _ in range(2):  # three deaths in ten seconds would stop the run
                begun = len(stored_trials(folder))
                wait_until(lambda begun=begun: len(stored_trials(folder)) > begun and stored_trials(folder)[-1].state == "RUNNING")
                time.sleep(draw.uniform(0.2, 0.8))
                victims = [pid for pid, arguments in forkserver.alive().items() if arguments[0] == "worker"]
                deaths = {trial.number for trial in stored_trials(folder) if trial.state == "RUNNING"}
                forkserver.kill(*victims)
                killed = time.monotonic()

                def requeued(deaths: set[int] = deaths) -> bool:
                    return any(
                        t.number in deaths and (t.state != "RUNNING" or len(t.attributes["hpsearch:attempts"]) > 1)
                        for t in stored_trials(folder)
                    )

                wait_until(requeued, 30)
                times.append(time.monotonic() - killed)
            forkserver.kill(*forkserver.alive())
            wait_until(lambda: not forkserver.alive())
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
        run = start_process(folder, "run", "small.toml", "--workers", "1", trainer="real", **{EPOCH_LOG: str(notes)})
        before = size()
        wait_until(lambda before=before: size() > before)
        time.sleep(draw.uniform(0, 1))
        before, killed = size(), time.monotonic()
        psutil.Process(run.pid).children()[0].kill()
        wait_until(lambda before=before: size() > before)
        again = time.monotonic() - killed
        run.terminate()
        run.wait(RUN_TIMEOUT)
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
        run = start_process(folder, "run", "small.toml", "--workers", "2", trainer="real")
        time.sleep(draw.uniform(0, 20))
        run.terminate()
        asked = time.monotonic()
        codes.append(run.wait(RUN_TIMEOUT))
        seconds.append(time.monotonic() - asked)
        for trial in stored_trials(folder):
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


# 9. Two thousand trials


def many_trials(setting: Setting) -> Iterator[Row]:
    """Experiment 9."""
    total, first = setting.of(2000, 120), setting.of(200, 60)
    folder = setting.study("many", trials=str(total))
    run = start_process(folder, "run", "small.toml", "--workers", "1", trainer="fake")
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
    trials = stored_trials(folder)
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
    notes, history = folder / "notes", FinishedTrials()
    with ForkServer() as forkserver:
        environment = {EPOCH_SECONDS: "0.3", EPOCH_LOG: str(notes)}
        run = forkserver.start(folder, "run", "small.toml", "--workers", "3", output=folder / "output", **environment)
        wait_until(lambda: any(trial.finished for trial in stored_trials(folder)))
        done = 0
        for away in [*(draw.uniform(0, 2) for _ in range(count)), outage]:
            time.sleep(draw.uniform(0.5, 3))
            if run.poll() is not None:
                break
            history.compare(folder)
            setting.server.stop("immediate")
            time.sleep(away)
            setting.server.start()
            done += 1
        code = run.wait(RUN_TIMEOUT)
    found = history.compare(folder)
    states = {state: sum(trial.state == state for trial in found) for state in ("RUNNING", "WAITING", "FAIL")}
    odd = [trial.number for trial in found if [each["number"] for each in trial.epochs] != [step for step, _ in trial.reports]]
    begun, again, _ = repeated_epochs(notes)
    dead = (folder / "output").read_text().count("a worker died")
    yield Row(
        fault="PostgreSQL crashes under a run",
        count=f"{done - 1} crashes, 1 outage of {outage} s",
        wanted="0 lost, 0 twice, 0 RUNNING, 0 workers dead, exactly N trials, the run goes on by itself",
        found=f"{len(history.lost)} lost or changed, {states['RUNNING']} RUNNING, {states['WAITING']} WAITING, "
        f"{len(found)} of {trials} trials ({states['FAIL']} failed), {len(odd)} with epochs twice or missing; "
        f"{again} of {begun:,} epochs begun again; {dead} workers died; {tracebacks(folder)} tracebacks; exit code {code}",
        ok=not (history.lost or odd or any(states.values()) or dead or tracebacks(folder))
        and len(found) == trials
        and code == 0
        and done == count + 1,
    )


EXPERIMENTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    **SHARED_EXPERIMENTS,
    "kills": kills,
    "noticed": noticed,
    "terminated": terminated,
    "many_trials": many_trials,
    "crashes": crashes,
}


ON_A_SERVER = ("kills", "real_kills", "follow_up_kills", "identical", "noticed", "crashes", "launchers")
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
