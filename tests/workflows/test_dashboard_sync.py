"""Rules of what the dashboard shows after a sync, by the storage and in a browser."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard import get_note, save_note

from hpsearch.cli.control_commands import rm
from hpsearch.config.study_file import load_study_file
from hpsearch.errors import StudyNotFoundError
from hpsearch.report.dashboard.note import BEGIN, END
from hpsearch.report.dashboard.server import DashboardStorage
from hpsearch.storage.database import open_store
from hpsearch.storage.records import StudyKey, TrialKey, write_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.dashboard_sync import sync_dashboard
from tests.support.dashboard_client import Served, serving, until
from tests.support.small_study import hpsearch
from tests.support.stored_study import stored_study

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLOTS = {"hpsearch-models", "hpsearch-cost", "hpsearch-importance", "hpsearch-confusion", "hpsearch-pruning", "hpsearch-workers"}
HOSTILE = "<script>alert(1)</script> \"'`|[x](javascript:alert(1)) ![y](http://evil.example/y.png) =cmd() 漢字 " + "x" * 1000


def place_of(folder: Path) -> Workspace:
    return Workspace(runs=folder / "runs", storage=f"sqlite:///{folder}/runs/hpsearch.db")


def leave_pictures(folder: Path) -> None:
    """What the formula leaves out: predictions of each trial, and a picture of the images."""
    from PIL import Image

    labels = numpy.arange(100) % 10
    guesses = numpy.where(numpy.arange(100) < 10, (labels + 1) % 10, labels)
    for trial in (folder / "runs" / "small" / "trials").iterdir():
        numpy.savez(
            trial / "predictions.npz",
            label=labels,
            predicted=guesses,
            confidence=numpy.linspace(1.0, 0.5, 100),
            classes=numpy.array([f"class {number}" for number in range(10)]),
            mistake=numpy.arange(10),
            mistake_image=numpy.full((10, 1, 28, 28), 128, dtype=numpy.uint8),
        )
    Image.new("RGB", (700, 500), "gray").save(folder / "runs" / "small" / "samples.png")


def synced(folder: Path) -> optuna.Study:
    """The study after a sync."""
    workspace = place_of(folder)
    store = workspace.open()
    sync_dashboard("small", workspace, store)
    return store.load("small")


def system_attrs(study: optuna.Study) -> dict[str, object]:
    return dict(study._storage.get_study_system_attrs(study._study_id))


def test_a_run_ends_with_note_plots_and_artifacts(searched_folder: Path) -> None:
    study = place_of(searched_folder).open().load("small")
    attrs = system_attrs(study)
    assert {key.split(":")[2] for key in attrs if key.startswith("dashboard:plot_data:")} == PLOTS
    note = get_note(study)
    assert note.startswith(BEGIN)
    assert "| rank | trial | model |" in note
    names = {json.loads(str(value))["filename"] for key, value in attrs.items() if key.startswith("artifacts:")}
    assert "report.html" in names


def test_a_second_sync_changes_nothing(searched_folder: Path) -> None:
    leave_pictures(searched_folder)
    before = system_attrs(synced(searched_folder))
    files = sorted((searched_folder / "runs" / "hpsearch.artifacts").iterdir())
    assert len(files) == 3
    assert system_attrs(synced(searched_folder)) == before
    assert sorted((searched_folder / "runs" / "hpsearch.artifacts").iterdir()) == files


def test_what_changed_takes_the_place_of_what_was(searched_folder: Path) -> None:
    leave_pictures(searched_folder)
    before = system_attrs(synced(searched_folder))
    report = searched_folder / "runs" / "small" / "report.html"
    report.write_text("<!DOCTYPE html><title>another</title>")
    after = system_attrs(synced(searched_folder))
    assert {key for key in after if key.startswith("artifacts:")} == {key for key in before if key.startswith("artifacts:")}
    stored = [path.read_bytes() for path in (searched_folder / "runs" / "hpsearch.artifacts").iterdir()]
    assert report.read_bytes() in stored


@pytest.mark.parametrize(
    ("person", "keeps"),
    [
        (lambda note: f"Mine, above.\n\n{note}\n\nMine, below.", ["Mine, above.", "Mine, below."]),
        (lambda note: "Only mine.", ["Only mine."]),
        (lambda note: note.replace(BEGIN, "") + "\nMine.", ["Mine."]),
        (lambda note: note.replace(END, "") + "\nMine.", ["Mine."]),
        (lambda note: "", []),
    ],
    ids=["around", "instead", "no begin", "no end", "empty"],
)
def test_a_persons_own_words_stay(searched_folder: Path, person: Callable[[str], str], keeps: list[str]) -> None:
    study = synced(searched_folder)
    save_note(study, person(get_note(study)))
    (searched_folder / "runs" / "small" / "report.html").write_text("another")
    note = get_note(synced(searched_folder))
    assert all(words in note for words in keeps)
    assert note.rindex(BEGIN) < note.rindex("| rank | trial | model |") < note.rindex(END)
    assert note.index(keeps[0]) < note.index(BEGIN) if keeps[:1] == ["Mine, above."] else True


def test_several_syncs_at_once_leave_what_one_leaves(searched_folder: Path) -> None:
    leave_pictures(searched_folder)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            synced(searched_folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    study = place_of(searched_folder).open().load("small")
    assert len([key for key in system_attrs(study) if key.startswith("artifacts:")]) == 3
    assert get_note(study).count(BEGIN) == get_note(study).count(END) == 1


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([], "has no trials yet"),
        (["waiting"], "No trial of small is complete yet"),
        (["running"], "No trial of small is complete yet"),
        (["fail", "fail"], "All 2 trials of small failed"),
        (["pruned", "pruned"], "All 2 trials of small were pruned"),
        (["complete"], "It is the only complete trial."),
        (["complete", "complete"], "Leaderboard of small"),
    ],
    ids=str,
)
def test_a_study_without_an_answer_says_so(folder: Path, states: list[str], says: str) -> None:
    file = load_study_file(folder / "small.toml")
    (folder / "runs").mkdir()
    workspace = place_of(folder)
    store = workspace.open_or_create()
    study = store.create(file.name)
    write_study(study, text=file.text, path=file.path, comparable=json.loads(json.dumps(file.comparable)))
    for state in states:
        if state == "waiting":
            study.enqueue_trial({"model": "cnn"})
            continue
        trial = study.ask(dict.fromkeys(["model"], optuna.distributions.CategoricalDistribution(["cnn", "lenet5"])))
        trial.set_user_attr(TrialKey.ATTEMPTS, [])
        trial.report(0.5, 1)
        if state != "running":
            study.tell(trial, 0.5 if state == "complete" else None, state=optuna.trial.TrialState[state.upper()])
    assert sync_dashboard("small", workspace, store)
    assert says in get_note(study)
    attrs = system_attrs(study)
    assert {key.split(":")[2] for key in attrs if key.startswith("dashboard:plot_data:")} == PLOTS


def test_a_study_that_belongs_to_another_is_no_search_and_is_not_synced(searched_folder: Path) -> None:
    workspace = place_of(searched_folder)
    store = workspace.open()
    study = store.load("small")
    study.set_user_attr(StudyKey.PLAN, "{}")
    study.tell(study.ask(), 0.5)
    assert not sync_dashboard("small", workspace, store)


def test_plain_optuna_dashboard_shows_the_same(searched_folder: Path) -> None:
    leave_pictures(searched_folder)
    synced(searched_folder)
    artifacts = FileSystemArtifactStore(searched_folder / "runs" / "hpsearch.artifacts")
    plain = optuna_dashboard.wsgi(f"sqlite:///{searched_folder}/runs/hpsearch.db", artifact_store=artifacts)
    environ = {"REQUEST_METHOD": "GET", "SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr}
    body = plain({**environ, "PATH_INFO": "/api/studies/1", "wsgi.input": io.BytesIO()}, lambda *head: None)
    found = json.loads(b"".join(body))
    with serving(searched_folder, "small") as running:
        shown = running.ask("/api/studies/1").data
        for meta in found["artifacts"]:
            stored = (searched_folder / "runs" / "hpsearch.artifacts" / meta["artifact_id"]).read_bytes()
            assert running.ask(f"/artifacts/1/{meta['artifact_id']}").body == stored
    assert {name: found[name] for name in ("note", "artifacts")} == {name: shown[name] for name in ("note", "artifacts")}
    assert sorted(plot["id"] for plot in found["plotly_graph_objects"]) == sorted(PLOTS)
    by_id = {plot["id"]: plot for plot in found["plotly_graph_objects"]}
    assert by_id == {plot["id"]: plot for plot in shown["plotly_graph_objects"]}


def test_a_copied_study_has_files_of_its_own(searched_folder: Path) -> None:
    leave_pictures(searched_folder)
    synced(searched_folder)
    workspace = place_of(searched_folder)
    folder = workspace.paths.artifacts
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert workspace.storage is not None
    optuna.copy_study(from_study_name="small", from_storage=workspace.storage, to_storage=workspace.storage, to_study_name="second")
    workspace.paths.study("second").folder.mkdir()
    assert sync_dashboard("second", workspace, workspace.open())
    assert {path: path.read_bytes() for path in before} == before
    (own,) = set(folder.iterdir()) - before.keys()
    assert f"/artifacts/2/{own.name}" in get_note(workspace.open().load("second"))
    rm("second", workspace=workspace, yes=True)
    assert set(folder.iterdir()) == before.keys()


def test_trials_of_a_deleted_study_are_not_shown_for_the_study_made_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    store, other = (open_store(url, create=True) for _ in range(2))
    study = stored_study(tmp_path, storage=store.storage, trials=2)
    shown = DashboardStorage(store.rdb)
    assert len(shown.get_all_trials(study._study_id)) == 2
    other.delete("small")
    again = stored_study(tmp_path, storage=other.storage, trials=1, epochs=1)
    assert again._study_id == study._study_id
    assert [trial.value for trial in shown.get_all_trials(again._study_id)] == [trial.value for trial in again.trials]


def test_nothing_is_written_for_a_study_of_another_program(searched_folder: Path) -> None:
    workspace = place_of(searched_folder)
    foreign = optuna.create_study(study_name="foreign", storage=workspace.storage)
    with pytest.raises(StudyNotFoundError):
        sync_dashboard("foreign", workspace, workspace.open())
    assert (foreign.user_attrs, system_attrs(foreign)) == ({}, {})


def test_a_deleted_study_leaves_no_artifacts(searched_folder: Path) -> None:
    synced(searched_folder)
    assert list((searched_folder / "runs" / "hpsearch.artifacts").iterdir())
    assert hpsearch(searched_folder, "rm", "small", "--yes").returncode == 0
    assert list((searched_folder / "runs" / "hpsearch.artifacts").iterdir()) == []


def test_show_names_the_plain_command(searched_folder: Path) -> None:
    shown = hpsearch(searched_folder, "show", "small", OPTUNA_STORAGE=f"sqlite:///{searched_folder}/runs/hpsearch.db")
    assert "optuna-dashboard 'sqlite:///" in shown.stdout
    assert "--artifact-dir runs/hpsearch.artifacts" in shown.stdout


# In a browser


@pytest.fixture(scope="module")
def shown_folder(finished_search: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with a person's note, hostile names and pictures."""
    folder = tmp_path_factory.mktemp("shown") / "here"
    shutil.copytree(finished_search[0], folder)
    leave_pictures(folder)
    study = place_of(folder).open().load("small")
    save_note(study, HOSTILE)
    distribution = optuna.distributions.CategoricalDistribution([HOSTILE])
    trial = study.ask({HOSTILE: distribution})
    trial.set_user_attr("=cmd()", HOSTILE)
    trial.set_user_attr(TrialKey.ATTEMPTS, [])
    study.tell(trial, 0.1)  # the last, and on the leaderboard all the same
    study.set_user_attr(HOSTILE, HOSTILE)
    return folder


@pytest.fixture(scope="module")
def shown(shown_folder: Path) -> Iterator[Served]:
    with serving(shown_folder, "small") as running:
        until(lambda: BEGIN in running.ask("/api/studies/1").data["note"]["body"])
        yield running


@pytest.fixture
def quiet(page: Page) -> Iterator[Page]:
    """A page on which nothing may go wrong, and none of what is hostile may run."""
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: faults.append(request.url) if "127.0.0.1" not in request.url and ":" in request.url[:6] else None)
    yield page
    assert faults == []


def test_the_studys_page_shows_curves_plots_and_artifacts(shown: Served, quiet: Page) -> None:
    quiet.goto(shown.address)
    for text in ("Intermediate values", "Timeline", "val_accuracy", "Study Artifacts"):
        quiet.get_by_text(text).first.wait_for()
    for title in ("Models, all", "Accuracy against parameters", "Hyperparameter importance", "Confusion matrix", "Pruning", "Timeline"):
        quiet.locator(".gtitle, .annotation-text").filter(has_text=title).first.wait_for()
    for name in ("samples.png", "mistakes.png"):
        picture = quiet.locator("img[src*='/artifacts/']").nth(0 if name == "samples.png" else 1)
        picture.wait_for()
        until(lambda picture=picture: picture.evaluate("image => image.naturalWidth") > 100)


def test_the_report_opens_from_the_note(shown: Served, quiet: Page) -> None:
    quiet.goto(f"{shown.address}/note")
    quiet.get_by_text("<script>alert(1)</script>").first.wait_for()
    quiet.locator("table td").first.wait_for()
    with quiet.expect_navigation():
        quiet.get_by_role("link", name="Report", exact=True).click()
    quiet.locator("h1").first.wait_for()
    assert "small" in quiet.title()
    quiet.locator(".plot svg").first.wait_for()
    # It is kept apart: it has no cookies, and no storage of the dashboard's.
    assert quiet.evaluate("() => { try { return document.cookie } catch (error) { return error.name } }") == "SecurityError"


def test_what_is_hostile_appears_as_text(shown: Served, quiet: Page) -> None:
    for path in ("", "/note", "/analytics", "/trials?numbers=8"):
        quiet.goto(f"{shown.address}{path}")
        quiet.get_by_text("small (id=1)").first.wait_for()
        quiet.wait_for_timeout(1500)
        assert quiet.locator("a[href^='javascript'], img[src*='evil']").count() == 0


def test_an_image_of_another_site_in_a_note_is_not_fetched(searched_folder: Path, page: Page) -> None:
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: asked.append(f"{request.failure} {request.url}"))
    with socket.create_server(("127.0.0.1", 0)) as other, serving(searched_folder, "small") as running:
        address = f"http://127.0.0.1:{other.getsockname()[1]}/pixel.png"
        save_note(place_of(searched_folder).open().load("small"), f"before ![x]({address}) after <img src='{address}'>")
        page.goto(f"{running.address}/note")
        page.get_by_text("before").first.wait_for()
        until(lambda: page.wait_for_timeout(100) or [each for each in asked if address in each])
        assert all("csp" in each.lower() for each in asked if address in each)
        other.settimeout(0.5)
        with pytest.raises(TimeoutError):
            other.accept()


def test_the_delete_button_deletes_nothing(shown: Served, page: Page) -> None:
    answers: list[int] = []
    page.on("response", lambda response: answers.append(response.status) if response.request.method == "DELETE" else None)
    page.goto(f"{shown.origin}/dashboard")
    page.get_by_label("delete study").first.click()
    page.get_by_role("button", name="Yes").click()
    until(lambda: page.wait_for_timeout(100) or answers)
    assert answers == [403]
    assert shown.ask("/api/studies/1").data["name"] == "small"
