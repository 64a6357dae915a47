"""Rules of a study that begins with the trials of another, that is a copy, or that another program made."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest

from hpsearch.errors import NotComparableError, StudyFileError, StudyNotFoundError, UsageError
from hpsearch.search.worker import Worker
from hpsearch.storage.records import read_identity, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.repeats import prepare_finalists
from hpsearch.workflows.run import find_study_file, prepare_search
from hpsearch.workflows.supervisor import Search

Searched = Callable[..., Search]
FROM_SMALL = ('name = "small"', 'name = "second"')
WARM = '\n[warm_start]\nfrom = ["small"]\n'


def test_trials_that_fit_the_space_are_copied_and_count_for_nothing(searched: Searched, make_worker: Callable[..., Worker]) -> None:
    first = searched()
    make_worker(first).work()
    fits = [trial for trial in read_trials(first.study) if trial.config is not None and trial.config.epochs >= 3]
    second = searched(FROM_SMALL, ("epochs = { int = [2, 4] }", "epochs = { int = [3, 5] }"), more=WARM)
    copies = [trial for trial in read_trials(second.study) if trial.origin.startswith("copy of small/")]
    assert [trial.params for trial in copies] == [trial.params for trial in fits]
    assert [trial.value for trial in copies] == [trial.value for trial in fits]
    assert [trial.epochs for trial in copies] == [trial.epochs for trial in fits]
    assert f"{len(fits)} of the 8 finished trials of 'small' fit the space and were copied" in second.changed
    assert make_worker(second).work() == 8
    again = searched(FROM_SMALL, ("epochs = { int = [2, 4] }", "epochs = { int = [3, 5] }"), more=WARM)
    assert len(read_trials(again.study)) == 8 + len(fits)


def test_trials_measured_otherwise_are_refused(searched: Searched, make_worker: Callable[..., Worker]) -> None:
    make_worker(searched()).work()
    with pytest.raises(NotComparableError, match=r"the trials of 'small' were measured otherwise:\n  seed: 3 → 4"):
        searched(FROM_SMALL, ("seed = 3", "seed = 4"), more=WARM)


def test_a_warm_start_from_a_missing_study_is_refused(searched: Searched) -> None:
    searched()
    with pytest.raises(StudyNotFoundError, match="no study 'smal'"):
        searched(FROM_SMALL, more=WARM.replace("small", "smal"))


def copy(workspace: Workspace, name: str, new_name: str) -> None:
    assert workspace.storage is not None
    optuna.copy_study(from_study_name=name, from_storage=workspace.storage, to_storage=workspace.storage, to_study_name=new_name)


def test_a_copied_study_goes_on_under_its_own_name(searched: Searched, make_worker: Callable[..., Worker], workspace: Workspace) -> None:
    first = searched(("trials = 8", "trials = 2"))
    make_worker(first).work()
    copy(workspace, "small", "second")
    second = prepare_search(find_study_file("second", workspace), workspace, trials=3)
    assert (second.study.study_name, second.earlier) == ("second", 2)
    assert make_worker(second).work() == 1
    assert sorted(workspace.open().study_names()) == ["second", "small"]
    assert [len(read_trials(search.study)) for search in (first, second)] == [2, 3]
    assert [path.name for path in workspace.runs.glob("*/trials/*")] == ["00000", "00001", "00002"]
    assert read_identity(first.study) == first.identity != second.identity
    # A copy of the copy, under the name of the first study, is a third study.
    first.store.delete("small")
    copy(workspace, "second", "small")
    third = prepare_search(find_study_file("small", workspace), workspace)
    assert third.identity not in (first.identity, second.identity)


def test_a_copy_under_a_name_that_is_no_folder_is_refused(searched: Searched, workspace: Workspace) -> None:
    searched()
    copy(workspace, "small", "small.finalists")
    with pytest.raises(StudyFileError, match="name: must be 1 to 80 letters"):
        find_study_file("small.finalists", workspace)


def test_copied_finalists_go_on_under_a_name_of_finalists_only(
    searched: Searched, make_worker: Callable[..., Worker], workspace: Workspace
) -> None:
    search = searched(("trials = 8", "trials = 1"))
    make_worker(search).work()
    prepare_finalists(search.file, workspace, top=1, seeds=2)
    copy(workspace, "small.finalists", "second.finalists")
    assert find_study_file("second.finalists", workspace).name == "second.finalists"
    copy(workspace, "small.finalists", "second")
    with pytest.raises(UsageError, match="'second' is a copy of a follow-up study"):
        find_study_file("second", workspace)


@pytest.mark.parametrize(("direction", "queued"), [("maximize", 1), ("minimize", 0)])
def test_a_study_of_another_program_is_not_continued(searched: Searched, workspace: Workspace, direction: str, queued: int) -> None:
    foreign = optuna.create_study(study_name="small", storage=workspace.storage, direction=direction)
    for _ in range(queued):
        foreign.enqueue_trial({})
    with pytest.raises(StudyNotFoundError, match="'small' was not made by hpsearch"):
        searched()
    assert foreign.user_attrs == {}


def test_finalists_do_not_begin_in_a_study_of_another_program(
    searched: Searched, make_worker: Callable[..., Worker], workspace: Workspace
) -> None:
    search = searched(("trials = 8", "trials = 1"))
    make_worker(search).work()
    foreign = optuna.create_study(study_name="small.finalists", storage=workspace.storage)
    with pytest.raises(StudyNotFoundError, match=r"'small\.finalists' was not made by hpsearch"):
        prepare_finalists(search.file, workspace, top=1, seeds=2)
    assert foreign.user_attrs == {}


@pytest.mark.parametrize("n_writes", range(6))
def test_a_study_whose_making_was_killed_is_made_on(
    searched: Searched, make_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    write = optuna.Study.set_user_attr
    written: list[str] = []

    def dies(study: optuna.Study, key: str, value: object) -> None:
        if len(written) == n_writes:
            raise KeyboardInterrupt
        write(study, key, value)
        written.append(key)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", dies)
        try:
            searched()
        except KeyboardInterrupt:
            assert len(written) == n_writes
        else:
            assert n_writes > 3  # all has been written
    assert make_worker(searched()).work() == 8
