"""What all tests share: how long hypothesis searches, and that no test leaves a component behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from hpsearch.config import registration as extensions
from hpsearch.config.study_file import StudyFile, parse_study_file
from hpsearch.storage.database import open_store
from hpsearch.storage.sqlite import SqliteFile
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import prepare_search
from hpsearch.workflows.supervisor import Search
from tests.support import synthetic_data
from tests.support.browser import browser, page  # noqa: F401  # fixtures
from tests.support.in_process_workers import make_worker  # noqa: F401  # a fixture
from tests.support.postgres_server import any_storage, postgres  # noqa: F401  # fixtures
from tests.support.small_study import NO_IMAGES, STUDY, hpsearch

# Output is as wide as COLUMNS says. The environment of the test run must not decide what the tests see.
os.environ.pop("COLUMNS", None)

# A shell script starts a background command with SIGINT ignored, and all processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What hpsearch remembers of the component files that it ran does not belong in the home folder of who runs the tests.
_state = tempfile.TemporaryDirectory(prefix="hpsearch-tests-")
os.environ["XDG_STATE_HOME"] = _state.name

settings.register_profile("default", max_examples=40, derandomize=True, deadline=None)
settings.register_profile("quick", max_examples=10, derandomize=True, deadline=None)
# Derandomized examples are the same in every run, so more of them tell something new only once.
settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


INTEGRATION_PLACES = (
    *("tests/faults/", "tests/test_releases.py", "tests/test_wheel.py", "tests/test_examples.py"),
    *("tests/cli/test_bad_input.py", "tests/cli/test_compare.py", "tests/cli/test_dashboard.py", "tests/cli/test_finalists.py"),
    *("tests/cli/test_foreign_studies.py", "tests/cli/test_looking.py", "tests/cli/test_show.py", "tests/cli/test_streams.py"),
    *("tests/cli/test_control.py", "tests/cli/test_train.py", "tests/cli/test_user_code.py", "tests/cli/test_watch.py"),
    *("tests/workflows/test_dashboard_sync.py", "tests/workflows/test_run.py", "tests/workflows/test_final_training.py"),
    *("tests/workflows/test_repeats.py", "tests/search/test_worker_pool.py", "tests/search/test_isolation.py"),
    *("tests/storage/test_trimmed_cache.py", "tests/storage/test_optuna_internals.py", "tests/training/test_saved_model.py"),
)
"""Folders and files whose tests start processes, run whole searches, or run whole models."""
INTEGRATION_FIXTURES = {"browser", "page", "postgres", "finished_search", "stripes_search", "fashion", "data_root"}
"""A test that uses one of them trains, starts a server or opens a browser, or waits for one that did."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make check` leaves out."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(item, "callspec", None)
        served = parameters is not None and "postgresql" in parameters.params.values()
        inside = item.nodeid.startswith(INTEGRATION_PLACES)
        if inside or served or fixtures & INTEGRATION_FIXTURES or item.get_closest_marker("slow"):
            item.add_marker("integration")


@pytest.fixture
def nothing_run_before(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has never run a component file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("new_user")))


@pytest.fixture(autouse=True)
def no_components_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(extensions, "_registered", dict(extensions._registered))


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """The URL of an empty database; where all of search is tested, of each kind."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def workspace(tmp_path: Path, storage: str) -> Workspace:
    return Workspace(runs=tmp_path / "runs", storage=storage)


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., StudyFile]:
    """Makes a study file from STUDY with some of its text replaced."""
    (tmp_path / "no_images.py").write_text(NO_IMAGES)

    def make(*changes: tuple[str, str], more: str = "") -> StudyFile:
        text = STUDY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "small.toml"
        path.write_text(text + more)
        return parse_study_file(text + more, path=path)

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with Optuna's tables. To make them takes half a second."""
    path = tmp_path_factory.mktemp("empty") / "study.db"
    open_store(f"sqlite:///{path}", create=True).dispose()
    return path


@pytest.fixture
def searched(workspace: Workspace, study_file: Callable[..., StudyFile], empty_database: Path) -> Callable[..., Search]:
    """Makes a prepared search of a study file with some of its text replaced."""

    def make(*changes: tuple[str, str], more: str = "", **options: Any) -> Search:
        if isinstance(workspace.database, SqliteFile) and not workspace.database.path.exists():
            shutil.copy(empty_database, workspace.database.path)
        return prepare_search(study_file(*changes, more=more), workspace, **options)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the study file, in which nothing has run yet."""
    inside = tmp_path / "a 'folder' & more"
    inside.mkdir()
    (inside / "small.toml").write_text(STUDY)
    (inside / "no_images.py").write_text(NO_IMAGES)
    return inside


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which the study was searched to its end, and what the command said."""
    inside = tmp_path_factory.mktemp("finished")
    (inside / "small.toml").write_text(STUDY)
    (inside / "no_images.py").write_text(NO_IMAGES)
    return inside, hpsearch(inside, "run", "small.toml")


@pytest.fixture
def searched_folder(finished_search: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of that folder, to change at will."""
    copied = tmp_path / "a 'folder' & more"
    shutil.copytree(finished_search[0], copied)
    return copied


@pytest.fixture(scope="session")
def stripes_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two workers have searched to the end."""
    inside = tmp_path_factory.mktemp("stripes")
    synthetic_data.write_study(inside)
    done = synthetic_data.command(inside, "run", "stripes.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return inside


@pytest.fixture
def stripes(stripes_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of it, and the current folder."""
    inside = tmp_path / "stripes"
    shutil.copytree(stripes_search, inside)
    synthetic_data.change_record(
        inside, "study_user_attributes", "hpsearch:study_file", lambda file: {**file, "path": str(inside / "stripes.toml")}
    )
    monkeypatch.chdir(inside)
    return Workspace(runs=inside / "runs")
