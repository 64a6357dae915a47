"""Rules of the commands that only look: they need no right to write, and they change nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from hpsearch.cli.main import app
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.dashboard_sync import DashboardSync
from tests.support.dashboard_client import serving
from tests.support.read_only import WITHOUT_RIGHTS, read_only, snapshot
from tests.support.small_study import ROOT

LOOK = """
import sys
from hpsearch.cli.main import app
from hpsearch.errors import HpsearchError
code = 0
for command in sys.argv[1:]:
    try:
        app(args=command.split(), standalone_mode=False)
    except HpsearchError as error:
        code = error.exit_code
        print(error, file=sys.stderr)
sys.exit(code)
"""
KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO studies (study_name) VALUES ('last')")
connection.execute("INSERT INTO study_directions (direction, study_id, objective) VALUES ('MAXIMIZE', last_insert_rowid(), 0)")
connection.commit()
os._exit(0)
"""
"""Leaves a log with a study, as a search that is killed."""
HALF_WRITTEN = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode = DELETE")
connection.execute("PRAGMA cache_size = 1")
connection.execute("UPDATE trial_user_attributes SET value_json = '{}'")
connection.execute("UPDATE trials SET state = 'RUNNING'")
os._exit(0)
"""
"""Leaves a transaction half written, as a program that is killed."""
COMMANDS = (
    *("ls", "ls --json", "show small", "show small 0", "show small --csv", "show small --watch"),
    *("report small -o ../report.html", "export small -o ../best.toml"),
)


def look(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands as a user who may write nothing that lacks the right to be written."""
    return subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, "-c", LOOK, *commands],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def own_files(folder: Path) -> dict[str, str]:
    """Everything below the folder but the memory that SQLite's connections share."""
    return {name: content for name, content in snapshot(folder).items() if not name.endswith("-shm")}


def test_looking_needs_no_right_to_write(searched_folder: Path) -> None:
    with read_only(searched_folder):
        done = look(searched_folder, *COMMANDS)
    assert done.returncode == 0, done.stderr
    assert "Best: trial" in done.stdout
    assert (searched_folder.parent / "report.html").stat().st_size > 1_000_000
    assert (searched_folder.parent / "best.toml").exists()


def test_what_a_search_has_not_yet_put_into_the_file_is_seen_or_missed_aloud(searched_folder: Path) -> None:
    runs, copy, half = (searched_folder / name for name in ("runs", "copy", "half"))
    shutil.copytree(runs, half)
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, half / "hpsearch.db"], check=True)
    assert (half / "hpsearch.db-journal").stat().st_size > 0
    store = Workspace(runs=runs).open()
    store.create("written-just-now")
    shutil.copytree(runs, copy, ignore=shutil.ignore_patterns("*-shm"))
    with read_only(runs), read_only(copy), read_only(half):
        done = look(searched_folder, "ls", "ls --runs copy", "ls --runs half")
    store.dispose()
    assert "written-just-now" in done.stdout
    assert "cannot use sqlite:///copy/hpsearch.db: unable to open database file" in done.stderr
    assert "cannot use sqlite:///half/hpsearch.db" in done.stderr


def test_the_dashboard_needs_no_right_to_write(searched_folder: Path) -> None:
    (searched_folder / "runs" / "small" / "report.html").write_text("what a sync would put into the dashboard")
    with read_only(searched_folder / "runs"), serving(searched_folder, prefix=WITHOUT_RIGHTS) as served:
        assert [study["study_name"] for study in served.ask("/api/studies").data["study_summaries"]] == ["small"]
        assert len(served.ask("/api/studies/1").data["trials"]) == 8
        assert served.end() == 130
        assert "could not be synced" not in served.said.read_text()


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_looking_in_ones_own_folder_changes_nothing(killed: bool, searched_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(searched_folder)
    with closing(sqlite3.connect("runs/hpsearch.db")) as connection:
        connection.execute("SELECT * FROM studies").fetchall()  # its end puts a log into the database
    if killed:
        subprocess.run([sys.executable, "-c", KILLED, "runs/hpsearch.db"], check=True)
    assert Path("runs/hpsearch.db-wal").exists() == killed
    before = own_files(searched_folder)
    for command in COMMANDS:
        app(args=command.split(), standalone_mode=False)
    assert own_files(searched_folder) == before


def test_looking_at_a_database_of_another_program_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'runs' / 'hpsearch.db'}"
    (tmp_path / "runs").mkdir()
    optuna.create_study(study_name="theirs", storage=url).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    before = snapshot(tmp_path)
    app(args=["ls", "--storage", url], standalone_mode=False)
    assert "theirs" in capsys.readouterr().out
    sync = DashboardSync(Workspace(runs=tmp_path / "runs"), only=None)
    sync.sync_all()
    sync.stop()
    assert snapshot(tmp_path) == before
    with closing(sqlite3.connect(tmp_path / "runs" / "hpsearch.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
