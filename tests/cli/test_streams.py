"""Standard input, output and error that are closed, full, or of another encoding than UTF-8."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch.storage.workspace import Workspace
from tests.support.small_study import ROOT


def redirected(folder: Path, redirections: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `hpsearch` with the fake trainer and with redirections of a shell, such as `2>&-`."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "tests.support.fake_trainer", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", "2>/dev/full"])
def test_a_search_runs_where_its_progress_cannot_be_printed(redirections: str, folder: Path) -> None:
    done = redirected(folder, redirections, "run", "small.toml", "--trials", "1")
    assert done.returncode == 0, done.stderr
    study = Workspace(runs=folder / "runs").open().load("small")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]


@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-"])
def test_a_closed_stream_is_no_error(closed: str, searched_folder: Path) -> None:
    done = redirected(searched_folder, closed, "show", "small")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Leaderboard of small" if ">&-" not in closed.split() else "")


@pytest.mark.parametrize(
    ("unbuffered", "command"),
    [("", "show small --json"), ("", "show small --csv"), ("", "show small"), ("1", "show small"), ("", "--help")],
)
def test_results_that_cannot_be_written_are_an_error_in_one_line(unbuffered: str, command: str, searched_folder: Path) -> None:
    done = redirected(searched_folder, ">/dev/full", *command.split(), PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (1, "error: 'standard output': No space left on device\n")


@pytest.mark.parametrize("arguments", [("show", "small", "--json"), ("show", "small"), ("--help",)], ids=" ".join)
def test_a_reader_that_leaves_ends_the_command_like_sigpipe(arguments: tuple[str, ...], searched_folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed_pipe:
        done = subprocess.run(
            [sys.executable, "-m", "hpsearch", *arguments],
            cwd=searched_folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_of_another_encoding_loses_nothing(encoding: str, searched_folder: Path) -> None:
    text = redirected(searched_folder, "| cat >text", "show", "small", "0", PYTHONIOENCODING=encoding)
    assert text.stderr == ""
    assert "Trial 0 (baseline): complete" in (searched_folder / "text").read_text(encoding)
    redirected(searched_folder, "| cat >trial.json", "show", "small", "0", "--json", PYTHONIOENCODING=encoding)
    assert json.loads((searched_folder / "trial.json").read_text(encoding))["trial"] == 0
