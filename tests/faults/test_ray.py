"""Rules of workers on a Ray cluster: two real nodes on this machine, a real PostgreSQL server, a fake trainer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.db_snapshot import repeated_epochs, stored_trials, wait_until
from tests.support.fake_trainer import EPOCH_LOG, EPOCH_SECONDS
from tests.support.forkserver import storage_environment
from tests.support.postgres_server import PASSWORD, Postgres
from tests.support.ray_cluster import RayCluster
from tests.support.small_study import ROOT, hpsearch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='Ray is not installed: pip install "hpsearch[ray]"'),
]


@pytest.fixture
def cluster(folder: Path) -> Iterator[RayCluster]:
    # A short path: Ray makes its sockets below it.
    own = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    made = RayCluster(own, **{EPOCH_SECONDS: "0.5", EPOCH_LOG: str(folder / "notes")})
    yield made
    made.close()
    shutil.rmtree(own, ignore_errors=True)


@pytest.fixture
def any_storage(postgres: Postgres) -> str:
    """Several machines cannot share a SQLite file."""
    return postgres.database()


def start(folder: Path, cluster: RayCluster, *options: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "tests.support.fake_trainer",
        "run",
        "small.toml",
        "--engine",
        "ray",
        "--address",
        cluster.address,
        *options,
    ]
    for name in ("optuna", "numpy", "sqlalchemy"):  # Ray's processes must not take them for the modules of these names
        (folder / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **storage_environment(folder), **cluster.environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def nodes_of(folder: Path) -> set[str]:
    """Return the workers that now train a trial and have an epoch."""
    running = [trial for trial in stored_trials(folder) if trial.state == "RUNNING" and trial.epochs]
    return {trial.attributes["hpsearch:attempts"][-1]["worker"] for trial in running}


def test_the_trials_of_a_lost_node_continue_elsewhere_and_the_budget_is_exact(folder: Path, cluster: RayCluster) -> None:
    run = start(folder, cluster, "--workers", "2")
    assert wait_until(lambda: len(nodes_of(folder)) == 2, 90)
    before = {trial.number: trial.epochs for trial in stored_trials(folder) if trial.state == "RUNNING"}
    cluster.kill_a_node()
    assert run.wait(200) == 0, (folder / "output").read_text()
    trials = stored_trials(folder)
    assert [trial.state for trial in trials] == ["COMPLETE"] * 8
    assert all(trials[number].epochs[: len(epochs)] == epochs for number, epochs in before.items())
    assert all([epoch["number"] for epoch in trial.epochs] == [step for step, _ in trial.reports] for trial in trials)
    assert sum(len(trial.attributes["hpsearch:attempts"]) > 1 for trial in trials) >= 1
    _, again, furthest = repeated_epochs(folder / "notes")
    assert again <= 2
    assert furthest <= 1
    assert "Traceback" not in (folder / "output").read_text()
    # No file of Ray or of the run, and no command line, contains the password of the database.
    for path in [*cluster.folder.rglob("*"), *folder.rglob("*")]:
        if path.is_file() and path != folder / "storage":
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_ctrl_c_requeues_the_trials_and_the_same_command_continues(folder: Path, cluster: RayCluster) -> None:
    run = start(folder, cluster, "--workers", "2")
    assert wait_until(lambda: len(nodes_of(folder)) == 2, 90)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert PASSWORD.encode() not in process.read_bytes(), process
        except OSError:  # it has just ended
            continue
    run.send_signal(signal.SIGINT)
    assert run.wait(20) == 130
    assert "RUNNING" not in {trial.state for trial in stored_trials(folder)}
    assert "Continue with the same command." in (folder / "output").read_text()
    assert start(folder, cluster).wait(120) == 0
    assert [trial.state for trial in stored_trials(folder)] == ["COMPLETE"] * 8


def test_without_ray_it_says_how_to_install_it(folder: Path) -> None:
    (folder / "hidden").mkdir()
    (folder / "hidden" / "ray.py").write_text("raise ImportError('no Ray here')")
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", "run", "small.toml", "--engine", "ray"],
        cwd=folder,
        env={**os.environ, **storage_environment(folder), "PYTHONPATH": f"{folder / 'hidden'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert 'pip install "hpsearch[ray]"' in done.stderr
    assert stored_trials(folder) == []


def test_a_missing_cluster_is_reported_in_one_line(folder: Path) -> None:
    done = hpsearch(folder, "run", "small.toml", "--engine", "ray", "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ray_option_without_ray_is_refused(folder: Path) -> None:
    done = hpsearch(folder, "run", "small.toml", "--gpus-per-worker", "0.25")
    assert done.returncode == 2
    assert "Add --engine ray." in done.stderr
