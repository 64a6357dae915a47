"""Rules of a worker that dies at an exact point of a trial's life: the study ends as if it had not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpsearch.search.failpoints import Failpoint
from tests.support.crash_points import DIE_AT, DIED, RUNG_POINTS
from tests.support.db_snapshot import run_to_end, stored_trials
from tests.support.forkserver import ForkServer, shared_server
from tests.support.small_study import NO_IMAGES, STUDY

ASHA = STUDY.replace('kind = "none"', 'kind = "asha"\nrungs = [0.12, 0.25, 0.5]').replace("[2, 4]", "[3, 9]")


def run_undisturbed(folder: Path, study: str) -> Path:
    (folder / "small.toml").write_text(study)
    (folder / "no_images.py").write_text(NO_IMAGES)
    assert run_to_end(shared_server("fake"), folder, "--workers", "1") == 0
    return folder


@pytest.fixture(scope="session")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_undisturbed(tmp_path_factory.mktemp("whole"), STUDY)


@pytest.fixture(scope="session")
def never_killed_asha(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_undisturbed(tmp_path_factory.mktemp("whole"), ASHA)


@pytest.mark.parametrize("point", [point for point in Failpoint if point not in RUNG_POINTS])
def test_a_death_leaves_no_trace_in_the_results(point: Failpoint, forkserver: ForkServer, never_killed: Path, folder: Path) -> None:
    died = folder / "died"
    assert run_to_end(forkserver, folder, "--workers", "1", **{DIE_AT: point, DIED: str(died)}) == 0
    assert died.exists()
    assert "A worker died" in (folder / "output").read_text()
    assert [trial.measured() for trial in stored_trials(folder)] == [trial.measured() for trial in stored_trials(never_killed)]


@pytest.mark.parametrize("point", [*RUNG_POINTS, Failpoint.AFTER_ASK, Failpoint.BEFORE_ATTEMPT, Failpoint.BETWEEN_CHECKPOINT_AND_STORE])
def test_a_death_changes_no_promotion(point: Failpoint, forkserver: ForkServer, never_killed_asha: Path, folder: Path) -> None:
    (folder / "small.toml").write_text(ASHA)
    died = folder / "died"
    assert run_to_end(forkserver, folder, "--workers", "1", **{DIE_AT: point, DIED: str(died)}) == 0
    assert died.exists()
    assert [trial.measured() for trial in stored_trials(folder)] == [trial.measured() for trial in stored_trials(never_killed_asha)]
    assert "PRUNED" in {trial.state for trial in stored_trials(folder)}


@pytest.mark.parametrize(
    "point",
    [Failpoint.AFTER_ASK, Failpoint.BETWEEN_DRAWS, Failpoint.AFTER_EPOCH, Failpoint.BETWEEN_EPOCHS_AND_END],
)
def test_a_death_of_everything_leaves_no_trace_either(point: Failpoint, forkserver: ForkServer, never_killed: Path, folder: Path) -> None:
    died = folder / "died"
    run = forkserver.start(folder, "worker", "small.toml", output=folder / "output", **{DIE_AT: point, DIED: str(died)})
    if run.wait(60) == 2:  # a worker joins a study, and does not make one
        assert run_to_end(forkserver, folder, "--workers", "1", "--trials", "1") == 0
        run = forkserver.start(folder, "worker", "small.toml", output=folder / "output", **{DIE_AT: point, DIED: str(died)})
    assert run.wait(60) == 137
    assert [trial.state for trial in stored_trials(folder)][-1] == "RUNNING"
    assert run_to_end(forkserver, folder, "--workers", "1") == 0
    assert "Trials 3 were interrupted and go on." in (folder / "output").read_text()
    assert [trial.measured() for trial in stored_trials(folder)] == [trial.measured() for trial in stored_trials(never_killed)]


def test_a_copied_folder_continues_too(forkserver: ForkServer, never_killed: Path, tmp_path: Path) -> None:
    shutil.copytree(never_killed, tmp_path / "moved")
    assert run_to_end(forkserver, tmp_path / "moved", "--trials", "10") == 0
    assert [trial.state for trial in stored_trials(tmp_path / "moved")] == ["COMPLETE"] * 10
