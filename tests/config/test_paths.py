"""What lies where, and names that would lead elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config.paths import RunPaths, bundled_studies, check_study_name, lock_folder
from hpsearch.errors import StudyFileError

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "a\\b",
    "a\0b",
    "a\n",
    "-x",
    "_x",
    " a",
    "<b>",
    "=cmd()",
    "ä",
    "٣",
    "x" * 81,
    "x" * 100_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(StudyFileError, match="name: must be") as caught:
        RunPaths().study(name)
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["a", "A-1_b", "0", "x" * 80])
def test_plain_name_is_taken(name: str) -> None:
    assert check_study_name(name) == name


@given(st.text())
def test_whatever_is_taken_stays_in_the_folder(name: str) -> None:
    try:
        folder = RunPaths(Path("/runs")).study(name).folder
    except StudyFileError:
        return
    assert folder.resolve().parent == Path("/runs")


def test_everything_of_a_study_is_below_its_folder() -> None:
    paths = RunPaths(Path("some where")).study("x")
    assert paths.log("worker-1") == Path("some where/x/logs/worker-1.log")
    assert paths.trial(7).checkpoint == Path("some where/x/trials/00007/checkpoint")
    assert paths.trial(7).predictions == Path("some where/x/trials/00007/predictions.npz")


def test_locks_lie_beside_the_database() -> None:
    assert lock_folder(Path("a/b.db")) == Path("a/b.db.locks")
    assert RunPaths().database == Path("runs/hpsearch.db")


def test_nothing_is_created_by_naming_it(tmp_path: Path) -> None:
    RunPaths(tmp_path / "runs").study("x").trial(1).checkpoint  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_shipped_studies_are_found() -> None:
    assert (bundled_studies() / "quickstart.toml").is_file()
