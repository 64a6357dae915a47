"""Claim: one PostgreSQL server feeds 64 workers without an error, and a trial costs the store about as much in a study of 10,000 as of 100.

    python benchmarks/scale.py [--results FILE]

Workers are light processes that run a fake trainer that takes no time, so that all the time is the
store's and the sampler's: claiming, drawing (TPE), storing and reporting two to four epochs, asking the
median pruner, telling. Two tables: by the number of workers on a new study, and by the number of trials
that stand in the study, with one worker. Busy seconds are those of all cores, server and benchmark
included: on an idle machine they are what a trial costs.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.db_snapshot import stored_trials, tracebacks
from tests.support.forkserver import ForkServer
from tests.support.postgres_server import Postgres
from tests.support.small_study import NO_IMAGES, STUDY
from tests.support.stored_study import every_third_pruned, stored_study

WORKERS = (1, 8, 64)
STORED = (100, 1_000, 10_000)
TEXT = STUDY.replace('kind = "none"', 'kind = "median"\nstartup_trials = 4\nwarmup_epochs = 1').replace("[2, 4]", "[1, 20]")
RUN_TIMEOUT = 900.0
DISTINCT = 1_000
TABLES = {
    "trial_values": "objective, value, value_type",
    "trial_intermediate_values": "step, intermediate_value, intermediate_value_type",
    "trial_params": "param_name, param_value, distribution_json",
    "trial_user_attributes": "key, value_json",
}
"""What belongs to a trial."""


def busy() -> float:
    """Seconds that the cores of this machine have worked so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def fill(folder: Path, server: Postgres, url: str, trials: int) -> None:
    """A study with so many finished trials, as a search leaves them; beyond a thousand each is there several times."""
    from hpsearch.storage.records import write_split_hash
    from hpsearch.storage.workspace import Workspace

    store = Workspace(runs=folder / "runs", storage=url).open_or_create()
    distinct = min(trials, DISTINCT)
    study = stored_study(folder, trials=distinct, epochs=3, state=every_third_pruned, storage=store.storage, text=TEXT)
    write_split_hash(study, "fake")
    store.dispose()
    database, copies = url.rsplit("/", 1)[1], trials // distinct - 1
    series = f"generate_series(1, {copies}) AS copy"
    server.execute(
        database,
        f"INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
        f"SELECT number + {distinct} * copy, study_id, state, datetime_start, datetime_complete FROM trials, {series} ORDER BY 1",
    )
    for table, columns in TABLES.items():
        server.execute(
            database,
            f"INSERT INTO {table} (trial_id, {columns}) SELECT copied.trial_id, {columns} FROM {table} JOIN trials old USING (trial_id), "
            f"{series} JOIN trials copied ON true WHERE copied.number = old.number + {distinct} * copy AND old.number < {distinct}",
        )


def search(forkserver: ForkServer, server: Postgres, folder: Path, *, workers: int, before: int, trials: int) -> str:
    """Search so many trials more; a row of the table.

    Raises:
        AssertionError: an error, a trial too many or too few, or one that was trained twice.
    """
    url = server.database()
    (folder / "small.toml").write_text(TEXT)
    (folder / "no_images.py").write_text(NO_IMAGES)
    (folder / "storage").write_text(url)
    if before:
        fill(folder, server, url, before)
    begun, cost = time.monotonic(), busy()
    run = forkserver.start(
        folder, "run", "small.toml", "--workers", str(workers), "--trials", str(before + trials), output=folder / "output"
    )
    code = run.wait(RUN_TIMEOUT)
    whole, cost = time.monotonic() - begun, busy() - cost
    found = [trial for trial in stored_trials(folder) if trial.number >= before]
    assert code == 0, (folder / "output").read_text()[-2000:]
    assert len(found) == trials
    assert all(trial.finished and len(trial.attributes["hpsearch:attempts"]) == 1 for trial in found)
    assert not tracebacks(folder)
    logs = [path.read_text() for path in (folder / "runs" / "small" / "logs").iterdir()]
    assert not any("error" in log or "Traceback" in log for log in logs)
    first = min(trial.attributes["hpsearch:attempts"][0]["at"] for trial in found)
    span = max(datetime.fromisoformat(str(trial.ended)).timestamp() for trial in found) - first
    used = len({trial.attributes["hpsearch:attempts"][0]["worker"] for trial in found})
    return (
        f"| {before:,} | {workers} ({used} had trials) | {trials} | {1000 * span / trials:.0f} | {trials / span:.1f} "
        f"| {1000 * cost / trials:.0f} | {whole - span:.1f} |"
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("workers", "stored"))
    only = parser.parse_args().only
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print("| trials stored before | workers | trials more | ms a trial | trials a second | busy ms a trial | s to start and end |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with Postgres(connections=300) as server, ForkServer() as forkserver, tempfile.TemporaryDirectory() as text:
        for workers in WORKERS if only != "stored" else ():
            folder = Path(text) / f"workers-{workers}"
            folder.mkdir()
            print(search(forkserver, server, folder, workers=workers, before=0, trials=max(60, 4 * workers)), flush=True)
        for before in STORED if only != "workers" else ():
            folder = Path(text) / f"stored-{before}"
            folder.mkdir()
            print(search(forkserver, server, folder, workers=1, before=before, trials=60), flush=True)


if __name__ == "__main__":
    main()
