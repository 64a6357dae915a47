"""Paths of files, names of studies, and the atomic write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config.paths import RunPaths, bundled_studies, check_study_name, lock_folder, partial_files, write_atomically
from hpsearch.errors import DiskError, StudyFileError

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
def test_name_that_could_lead_to_another_folder_is_refused(name: str) -> None:
    with pytest.raises(StudyFileError, match="name: must be") as caught:
        RunPaths().study(name)
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["a", "A-1_b", "0", "x" * 80])
def test_plain_name_is_allowed(name: str) -> None:
    assert check_study_name(name) == name


@given(st.text())
def test_every_allowed_name_stays_in_the_folder(name: str) -> None:
    try:
        folder = RunPaths(Path("/runs")).study(name).folder
    except StudyFileError:
        return
    assert folder.resolve().parent == Path("/runs")


def test_all_files_of_a_study_are_below_its_folder() -> None:
    paths = RunPaths(Path("some where")).study("x")
    assert paths.log("worker-1") == Path("some where/x/logs/worker-1.log")
    assert paths.trial(7).checkpoint == Path("some where/x/trials/00007/checkpoint")
    assert paths.trial(7).predictions == Path("some where/x/trials/00007/predictions.npz")


def test_locks_lie_beside_the_database() -> None:
    assert lock_folder(Path("a/b.db")) == Path("a/b.db.locks")
    assert RunPaths().database == Path("runs/hpsearch.db")


def test_a_path_creates_nothing(tmp_path: Path) -> None:
    RunPaths(tmp_path / "runs").study("x").trial(1).checkpoint  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_shipped_studies_are_found() -> None:
    assert (bundled_studies() / "quickstart.toml").is_file()


# The atomic write


def test_writing_creates_the_folder_and_leaves_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, "ä")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_previous_file_is_kept_on_request(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    write_atomically(path, "new", previous=tmp_path / "file.previous")
    assert (path.read_text(), (tmp_path / "file.previous").read_text()) == ("new", "old")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    write_atomically(path, "old")
    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
        with pytest.raises(DiskError, match=r"file cannot be written: No space left on device\nMake room there"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_partial_files_of_one_file_are_found(tmp_path: Path) -> None:
    left = {tmp_path / name for name in (".model.12ab34cd.part", ".model.part")}
    for path in {*left, tmp_path / ".other.12ab34cd.part", tmp_path / "model"}:
        path.touch()
    assert set(partial_files(tmp_path / "model")) == left


def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    # Root may replace /dev/null by a file, which would break the machine.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "link to pipe").symlink_to(pipe)
    write_atomically(pipe, "one ")
    write_atomically(tmp_path / "link to pipe", "two")
    assert os.read(reader, 100) == b"one two"
    os.close(reader)
    assert (pipe.is_fifo(), (tmp_path / "link to pipe").is_symlink()) == (True, True)


def test_the_file_behind_a_link_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new folder" / "file")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new folder" / "file").read_text() == "new"


@pytest.mark.parametrize("place", ["", ".", "/", ".."])
def test_a_folder_is_not_written_as_a_file(place: str) -> None:
    with pytest.raises(DiskError, match="Is a directory"):
        write_atomically(Path(place), "x")
