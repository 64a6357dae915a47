"""Rules of the command that writes best configs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpsearch.config import registration
from hpsearch.config.best_config import BestConfig
from hpsearch.config.sections import Data
from hpsearch.config.space_parser import configure
from hpsearch.errors import ComponentError, StudyNotFoundError, UsageError
from hpsearch.storage.records import read_study, read_trials
from hpsearch.workflows.export import best_config, require_own_files, write_best_config
from hpsearch.workflows.supervisor import Search
from tests.support.small_study import STUDY, hpsearch
from tests.support.stored_study import stored_study


@pytest.fixture
def best() -> BestConfig:
    return BestConfig(config=configure(model="lenet5"), data=Data(), split_seed=1, provenance={})


@pytest.mark.parametrize("name", ["best.toml", "best.json", "best"])
def test_a_best_config_is_written_over_another_one(best: BestConfig, tmp_path: Path, name: str) -> None:
    for _ in range(2):
        write_best_config(best, tmp_path / name)
    assert (tmp_path / name).read_text() == (best.to_json() if name.endswith("json") else best.to_toml())


@pytest.mark.parametrize("content", [STUDY, "", "not toml", "[1, 2]", "a = " + "[" * 20_000])
def test_a_file_that_is_no_best_config_is_not_written_over(best: BestConfig, tmp_path: Path, content: str) -> None:
    path = tmp_path / "small.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"small\.toml' exists and is no best config"):
        write_best_config(best, path)
    assert path.read_text() == content


def test_another_ending_is_refused(best: BestConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a best config is TOML or JSON, but '.*best\.yaml' ends in '\.yaml'"):
        write_best_config(best, tmp_path / "best.yaml")


def test_a_failed_trial_is_refused_with_its_reason(tmp_path: Path) -> None:
    study = stored_study(tmp_path, trials=1, state=lambda number: TrialState.FAIL, end={"reason": "out of memory"})
    with pytest.raises(StudyNotFoundError, match=r"trial 0 of 'small' failed: out of memory"):
        best_config(read_trials(study)[0], read_study(study))


def test_one_trial_and_the_best_few_exclude_each_other(searched_folder: Path) -> None:
    done = hpsearch(searched_folder, "export", "small", "--trial", "3", "--top", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--trial names one trial, but --top and --per choose among the best" in done.stderr
    assert not (searched_folder / "best.toml").exists()


def test_looking_at_results_runs_no_component_file_from_elsewhere(
    searched: Callable[..., Search], nothing_run_before: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    search = searched()
    row = read_study(search.study)
    monkeypatch.setattr(registration, "_registered", {})  # as in another process
    require_own_files(row)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("another_user")))
    with pytest.raises(ComponentError, match=r"the study 'small' would run the program '.*no_images\.py'"):
        require_own_files(row)
    search.file.component_files[0].path.unlink()
    require_own_files(row)  # nothing is there to run
