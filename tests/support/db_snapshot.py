"""Read a study from its database without hpsearch and Optuna, and run one to its end: for fault tests."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forkserver import ForkServer, storage_environment
from tests.support.small_study import ROOT

RUN_TIMEOUT = 300.0
"""Seconds after which a run that does not end counts as a failure."""


@dataclass(frozen=True)
class StoredTrial:
    """A trial as stored in the database."""

    number: int
    state: str
    ended: str | None
    values: tuple[float, ...]
    reports: tuple[tuple[int, float], ...]
    params: tuple[tuple[str, float], ...]
    attributes: dict[str, Any] = field(hash=False)

    @property
    def finished(self) -> bool:
        return self.state in ("COMPLETE", "PRUNED", "FAIL")

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return list(json.loads(self.attributes.get("hpsearch:epochs", "[]")))

    def measured(self) -> tuple[Any, ...]:
        """Return everything except times."""
        timed = ("seconds", "images_per_second")
        epochs = [{key: value for key, value in epoch.items() if key not in timed} for epoch in self.epochs]
        kept = {
            key: self.attributes.get(key)
            for key in ("parameters", "flops", "train_accuracy", "gap", "epochs_done", "hpsearch:end", "hpsearch:pause")
        }
        digest = json.loads(self.attributes.get("hpsearch:run", "{}")).get("digest")
        return (self.number, self.state, self.values, self.reports, self.params, epochs, kept, digest)


def stored_trials(folder: Path, study: str = "small") -> list[StoredTrial]:
    """Return all trials of a study in a folder's database."""
    with _snapshot(folder) as connection:
        if connection is None:
            return []
        rows = connection.execute(
            "SELECT trial_id, number, state, datetime_complete FROM trials JOIN studies USING (study_id) "
            f"WHERE study_name = '{study}' ORDER BY number"
        ).fetchall()
        values = _grouped(connection, "trial_values", "value")
        reports = _grouped(connection, "trial_intermediate_values", "step, intermediate_value")
        params = _grouped(connection, "trial_params", "param_name, param_value")
        attributes = _grouped(connection, "trial_user_attributes", "key, value_json")
    return [
        StoredTrial(
            number,
            state,
            ended,
            tuple(value for (value,) in values.get(key, [])),
            tuple(sorted(reports.get(key, []))),
            tuple(sorted(params.get(key, []))),
            {name: json.loads(content) for name, content in attributes.get(key, [])},
        )
        for key, number, state, ended in rows
    ]


def count_studies(folder: Path) -> int:
    """Return the number of studies in a folder's database."""
    with _snapshot(folder) as connection:
        return 0 if connection is None else int(connection.execute("SELECT count(*) FROM studies").fetchone()[0])


@contextmanager
def _snapshot(folder: Path) -> Iterator[Any]:
    """Yield a read-only snapshot of the folder's database, or None before the tables exist."""
    url = storage_environment(folder).get("OPTUNA_STORAGE")
    if url is not None:
        import psycopg

        with psycopg.connect(url.replace("+psycopg", "")) as server:
            server.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            # Optuna makes this table last.
            (there,) = server.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone() or (False,)
            yield server if there else None
        return
    database = folder / "runs" / "hpsearch.db"
    if not database.exists():
        yield None
        return
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
        connection.execute("BEGIN")
        yield connection if there else None


def _grouped(connection: Any, table: str, columns: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for key, *rest in connection.execute(f"SELECT trial_id, {columns} FROM {table}"):
        found.setdefault(key, []).append(tuple(rest))
    return found


@dataclass
class FinishedTrials:
    """Checks that a finished trial never changes.

    Attributes:
        study: name of the study.
        seen: each finished trial as it was at first.
        lost: numbers of finished trials that changed or disappeared.
    """

    study: str = "small"
    seen: dict[int, StoredTrial] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def compare(self, folder: Path) -> list[StoredTrial]:
        """Compare the stored trials with those seen before, and return them."""
        trials = stored_trials(folder, self.study)
        now = {trial.number: trial for trial in trials}
        self.lost |= {number for number, before in self.seen.items() if now.get(number) != before}
        self.seen |= {number: trial for number, trial in now.items() if trial.finished and number not in self.seen}
        return trials


def repeated_epochs(notes: Path) -> tuple[int, int, int]:
    """Return the epochs begun, those begun again, and the largest number of epochs that one trial repeated at once.

    The parts of an epoch up to its rungs count like epochs.
    """
    parts: dict[str, list[float]] = {}
    begun = again = furthest = 0
    for line in notes.read_text().splitlines() if notes.exists() else []:
        digest, part = line.split()[0], float(line.split()[1])
        begun += 1
        earlier = parts.setdefault(digest, [])
        back = sum(part <= other for other in set(earlier))
        again += back > 0
        furthest = max(furthest, back)
        earlier.append(part)
    return begun, again, furthest


def run_to_end(forkserver: ForkServer, folder: Path, *options: str, command: str = "run", **environment: str) -> int:
    """Run a command on the study to its end and return the exit code."""
    return forkserver.start(folder, command, "small.toml", *options, output=folder / "output", **environment).wait(RUN_TIMEOUT)


def start_process(folder: Path, *arguments: str, trainer: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command in a new interpreter."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_trainer", *arguments],
            cwd=folder,
            env={**os.environ, **storage_environment(folder), "PYTHONPATH": str(ROOT), "FAKE_TRAINER": trainer, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def wait_until(condition: Callable[[], Any], seconds: float = RUN_TIMEOUT) -> bool:
    """Wait until a condition holds, checked 100 times a second; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def tracebacks(folder: Path) -> int:
    """Return the number of tracebacks in the output."""
    return (folder / "output").read_text(errors="replace").count("Traceback") if (folder / "output").exists() else 0
