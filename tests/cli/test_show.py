"""Rules of what the reading commands print."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small_study import hpsearch
from tests.support.synthetic_data import command


def test_show_prints_leaderboard_trial_json_and_csv(searched_folder: Path) -> None:
    board = hpsearch(searched_folder, "show", "small").stdout
    assert "Best: trial" in board
    one = hpsearch(searched_folder, "show", "small", "0").stdout
    assert one.startswith("Trial 0 (baseline): complete")
    assert "val acc" in one
    data = json.loads(hpsearch(searched_folder, "show", "small.toml", "--json").stdout)
    assert len(data["leaderboard"]) == 8
    trial = json.loads(hpsearch(searched_folder, "show", "small", "0", "--json").stdout)
    assert trial["run"]["config"]["model"]["name"] == "lenet5"
    rows = list(csv.DictReader(io.StringIO(hpsearch(searched_folder, "show", "small", "--csv").stdout)))
    assert len(rows) == 8
    assert rows[0]["params.sgd.lr"] == "0.05"


def test_show_of_a_missing_study_or_trial_says_what_there_is(searched_folder: Path) -> None:
    missing = hpsearch(searched_folder, "show", "smal")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no study 'smal'" in missing.stderr
    assert "Did you mean 'small'?" in missing.stderr
    beyond = hpsearch(searched_folder, "show", "small", "99")
    assert "no trial 99 in 'small'" in beyond.stderr
    assert "Its trials: 0 to 7." in beyond.stderr


def test_ls_lists_studies(searched_folder: Path) -> None:
    listed = json.loads(hpsearch(searched_folder, "ls", "--json").stdout)
    assert [(row["study"], row["complete"]) for row in listed] == [("small", 8)]


def test_reading_makes_no_files(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    for arguments in (["ls"], ["show", "small"], ["show", "small.toml"]):
        done = hpsearch(folder, *arguments)
        assert done.returncode == 2
        assert "there is no database" in done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [["show", "small"], ["show", "small", "0"], ["ls"], ["--help"], ["run", "--help"], ["check", "small.toml"]]
)
def test_commands_that_only_read_load_no_torch(searched_folder: Path, arguments: list[str]) -> None:
    (searched_folder / "no_images.py").write_text("import hpsearch\n\n@hpsearch.dataset('no_images')\ndef f(root, *, train): ...\n")
    code = f"""
import sys
sys.argv = ["hpsearch", *{arguments!r}]
from hpsearch.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=searched_folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_color_is_honoured(searched_folder: Path) -> None:
    done = hpsearch(searched_folder, "show", "small", NO_COLOR="1", FORCE_COLOR="1")
    assert "\x1b[3" not in done.stdout


def test_summary_prints_the_table_of_layers(folder: Path) -> None:
    done = command(folder, "summary", "cnn", "filters1=48")
    assert done.returncode == 0, done.stderr
    assert "filters1=48" in done.stdout
    assert "121,930 parameters" in command(folder, "summary", "cnn").stdout
    wrong = command(folder, "summary", "cnn", "filtres1=48")
    assert wrong.returncode == 2
    assert "Did you mean 'filters1'?" in wrong.stderr


def test_init_writes_a_study_that_checks(tmp_path: Path) -> None:
    done = hpsearch(tmp_path, "init", "mine.toml", "--from", "own-network")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hpsearch.schema.json", "mine.toml", "own_network.py"]
    assert hpsearch(tmp_path, "check", "mine.toml").returncode == 0
    again = hpsearch(tmp_path, "init", "mine.toml")
    assert again.returncode == 2
    assert "mine.toml exists already" in again.stderr
