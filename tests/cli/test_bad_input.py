"""Wrong input on the real command line: one message, exit code 2, and nothing written."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch.cli.main import _explained
from hpsearch.training.data import files
from tests.support.bad_study_files import FILE, MISTAKES, VALID, Mistake, study
from tests.support.forkserver import shared_server
from tests.support.read_only import snapshot
from tests.support.small_study import ROOT

WRONG_USAGE = 2
PASSWORD = "hunter2"


BY_NAME = {mistake.name: mistake for mistake in MISTAKES}
CHECKED = (
    "broken TOML",
    "unknown key in pruner",
    "huge bound",
    "step that does not divide",
    "conditions in a circle",
    "two owners of one value",
    "gp on a conditional space",
    "baseline's key that does not exist there",
    "more images than there are",
    "name with NUL",
    "component file that exits",
    "component file that does not import",
)
RUN = ("low above high", "name that leaves the folder", "component file that is missing")


def hpsearch(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return shared_server("fake").run(folder, *arguments, PYTHONDONTWRITEBYTECODE="1", **environment)


def assert_refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == WRONG_USAGE, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert [line for line in lines[1:] if not line.startswith("  hint: ")] == []
    assert [words for words in says if words not in done.stderr] == [], done.stderr


@pytest.fixture(scope="session")
def images() -> Path:
    return files.prepare("fashion-mnist").absolute()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a blank and a quote in its name, and a valid study file."""
    folder = tmp_path / "a folder's"
    folder.mkdir()
    (folder / FILE).write_text(VALID, encoding="utf-8")
    return folder


def put(folder: Path, mistake: Mistake) -> None:
    (folder / FILE).write_text(mistake.text, encoding="utf-8")
    for name, source in mistake.files:
        (folder / name).write_text(source, encoding="utf-8")


@pytest.mark.parametrize("name", CHECKED)
def test_check_refuses_in_one_message(name: str, folder: Path) -> None:
    put(folder, BY_NAME[name])
    before = snapshot(folder)
    assert_refused(hpsearch(folder, "check", FILE), FILE, *BY_NAME[name].says)
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", RUN)
def test_run_refuses_before_anything_is_written(name: str, folder: Path) -> None:
    put(folder, BY_NAME[name])
    before = snapshot(folder)
    assert_refused(hpsearch(folder, "run", FILE), FILE, *BY_NAME[name].says)
    assert snapshot(folder.parent) == {folder.name: "folder", **{f"{folder.name}/{name}": found for name, found in before.items()}}


@pytest.mark.parametrize("command", ["check", "run"])
def test_missing_file_is_refused_with_its_neighbour(command: str, folder: Path) -> None:
    before = snapshot(folder)
    assert_refused(hpsearch(folder, command, "studdy.toml"), "studdy.toml", "No such file", f"'{FILE}'")
    assert snapshot(folder) == before


def test_unknown_study_is_refused_and_no_database_made(folder: Path) -> None:
    assert_refused(hpsearch(folder, "show", "study"), "no database", "hpsearch run")
    assert list(snapshot(folder)) == [FILE]


# The images


def empty(data: Path) -> None:
    data.mkdir()


def cut(data: Path) -> None:
    data.mkdir()
    for name in files.SHAPES:
        (data / name).write_bytes(b"\0\0\x08\x01" + bytes(1000))


def some(data: Path) -> None:
    data.mkdir()
    (data / "train-images-idx3-ubyte").write_bytes(b"")


def corrupt(data: Path) -> None:
    data.mkdir()
    for name in files.SHAPES:
        (data / f"{name}.gz").write_bytes(b"not gzip at all")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda data: None, "does not exist"),
        (empty, "empty"),
        (some, "missing: "),
        (cut, "bytes"),
        (corrupt, "does not unpack"),
    ],
    ids=["no folder", "empty", "some", "cut", "corrupt"],
)
def test_run_names_what_is_wrong_with_the_images(make: object, says: str, folder: Path) -> None:
    make(folder / "images")  # type: ignore[operator]
    before = snapshot(folder)
    assert_refused(hpsearch(folder, "run", FILE, "--data", "images"), "images", says)
    assert snapshot(folder) == before


# The storage


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"mysql://me:{PASSWORD}@host/db", "sqlite:///FILE"),
        (f"redis://:{PASSWORD}@host:6379/0", "sqlite:///FILE"),
        (f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/db", "cannot use the storage postgresql+psycopg://***@127.0.0.1:1/db"),
        (f"postgresql+psycopg2://me:{PASSWORD}@host/db", "postgresql+psycopg://HOST/DATABASE"),
        (f"postgresql://me:{PASSWORD}@host", "must name a database"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite://", "must be a file"),
        (f"me:{PASSWORD}@host", "sqlite:///FILE"),
        ("sqlit:///study.db", "sqlite:///FILE"),
        (f"me:{PASSWORD}@more@host", "sqlite:///FILE"),
        (f"postgresql://127.0.0.1:1/db?user=me&password={PASSWORD}", "Is the server running"),
        ("study.db", "sqlite:///FILE"),
        (f"postgresql://me:pa@{PASSWORD}@host/db", "%40 for @"),
        (f"postgresql://me:{PASSWORD}", "HOST:PORT/DATABASE"),
    ],
    ids=[
        "mysql",
        "redis",
        "postgresql",
        "another driver",
        "no database",
        "memory",
        "nameless",
        "no scheme",
        "misspelled",
        "two signs",
        "in the query",
        "file name",
        "unquoted sign",
        "no host",
    ],
)
def test_other_storage_is_refused_and_its_password_not_printed(url: str, says: str, folder: Path, images: Path) -> None:
    before = snapshot(folder)
    done = hpsearch(folder, "run", FILE, "--data", str(images), OPTUNA_STORAGE=url)
    assert_refused(done, "storage", says)
    assert PASSWORD not in done.stderr
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [["show", "URL"], ["ls", "URL"], ["ls", "--runs", "URL"]],
    ids=" ".join,
)
def test_a_storage_in_the_wrong_place_is_printed_without_its_password(arguments: list[str], folder: Path) -> None:
    url = f"postgresql+psycopg://me:pa@{PASSWORD}@db.example.org/{'long' * 30}"
    done = hpsearch(folder, *(url if each == "URL" else each for each in arguments))
    assert done.returncode == WRONG_USAGE
    assert PASSWORD not in done.stderr + done.stdout


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()


def damaged(path: Path) -> None:
    foreign(path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("trial,value\n1,0.5\n"), "not a SQLite database"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(50)), "damaged"),
        (damaged, "damaged"),
        (foreign, "recipes"),
        (lambda path: path.mkdir(), "directory"),
    ],
    ids=["empty", "text", "cut", "damaged", "another program's", "folder"],
)
def test_file_that_is_no_storage_is_refused_and_left_as_it_is(make: object, says: str, folder: Path, images: Path) -> None:
    make(folder / "mine.db")  # type: ignore[operator]
    before = snapshot(folder)
    done = hpsearch(folder, "run", FILE, "--data", str(images), "--storage", "sqlite:///mine.db")
    assert_refused(done, "mine.db", says)
    assert snapshot(folder) == before


def test_storage_below_a_file_is_refused(folder: Path, images: Path) -> None:
    before = snapshot(folder)
    assert_refused(hpsearch(folder, "run", FILE, "--data", str(images), "--storage", f"sqlite:///{FILE}/x/mine.db"), "mine.db")
    assert snapshot(folder) == before


def test_runs_below_a_file_are_refused(folder: Path, images: Path) -> None:
    before = snapshot(folder)
    assert_refused(hpsearch(folder, "run", FILE, "--data", str(images), "--runs", f"{FILE}/runs"), FILE)
    assert snapshot(folder) == before


# Options


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", FILE, "--time", "soon"], "--time"),
        (["run", FILE, "--trials", "0"], "--trials"),
        (["run", FILE, "--workers", "many"], "--workers"),
        (["run", FILE, "--frobnicate"], "--frobnicate"),
        (["chekc", FILE], "chekc"),
        (["init", FILE], "exists already"),
        (["init", "new.toml", "--from", "quikstart"], "'quickstart'"),
        (["init", "nowhere/new.toml"], "nowhere"),
    ],
    ids=" ".join,
)
def test_wrong_option_is_named_and_nothing_written(arguments: list[str], says: str, folder: Path) -> None:
    before = snapshot(folder)
    done = hpsearch(folder, *arguments)
    assert done.returncode == WRONG_USAGE
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert snapshot(folder) == before


def test_study_of_an_unknown_data_set_offers_the_known_one(folder: Path) -> None:
    (folder / FILE).write_text(study({"data": 'dataset = "mnistt"'}), encoding="utf-8")
    assert_refused(hpsearch(folder, "run", FILE), "data.dataset", "'mnist'")


def test_a_driver_that_is_missing_is_named_with_its_extra(folder: Path, images: Path) -> None:
    (folder / "hidden").mkdir()
    (folder / "hidden" / "psycopg.py").write_text("raise ImportError('no driver here')")
    url = f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/db"
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", "run", FILE, "--data", str(images), "--storage", url],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder / 'hidden'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_refused(done, "psycopg", 'pip install "hpsearch[postgres]"')
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.py"), 1, "may not open more files"),
        (ImportError("libtorch.so: cannot open shared object file: Too many open files"), 1, "may not open more files"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 1, "not enough memory"),
        (RuntimeError("can't start new thread"), 1, "not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "locked"), 1, "'locked': Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), WRONG_USAGE, "File name too long"),
    ],
    ids=str,
)
def test_what_this_machine_refuses_is_no_fault_of_hpsearch(error: Exception, code: int, says: str) -> None:
    found = _explained(error)
    assert (found.exit_code, says in found.message) == (code, True)
    assert "fault of hpsearch" not in found.hint


def test_an_unknown_error_is_one_line_that_no_terminal_obeys() -> None:
    found = _explained(KeyError("a\nb\x1b[31m"))
    assert "fault of hpsearch" in found.hint
    assert found.message.isprintable()


@pytest.mark.parametrize(
    "arguments",
    [["predict", "x" * 300, "a.png"], ["train", "x" * 300 + ".toml"], ["compare", "x" * 300, "y"], ["compare", "x" * 300 + ".toml", "y"]],
)
def test_a_name_that_is_too_long_is_refused(arguments: list[str], folder: Path) -> None:
    assert_refused(hpsearch(folder, *arguments), "File name too long")


@pytest.mark.parametrize("limit", [10, 16])
def test_too_few_open_files_are_said(limit: int, searched_folder: Path) -> None:
    program = f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit})); sys.argv[0] = 'hpsearch'; from hpsearch.cli.main import main; main()"
    command = [sys.executable, "-c", program, "export", "small", "-o", "best.toml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=searched_folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "fault of hpsearch" not in done.stderr
    assert "Traceback" not in done.stderr
