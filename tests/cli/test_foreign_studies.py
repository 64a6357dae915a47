"""Rules of a storage that others use too: no study of theirs, and no damaged one, keeps hpsearch from showing the others."""

from __future__ import annotations

import io
import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note

from hpsearch.cli.main import app
from hpsearch.config.study_file import StudyFile
from hpsearch.errors import StudyNotFoundError
from hpsearch.report.dashboard.access import AccessPolicy
from hpsearch.report.dashboard.server import make_app
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.records import StudyKey, TrialKey
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.dashboard_sync import DashboardSync
from hpsearch.workflows.run import prepare_search
from tests.support.stored_study import stored_study

NAMES = (
    "two\nlines",
    "\x1b[31mred",
    "[bold]markup[/bold]",
    "../up",
    "-h",
    "x" * 512,
    "漢字 ü",
    "a.toml",
    "small.finalists",
    "small.explain",
)


def foreign_studies(url: str) -> None:
    """What other programs may leave in a storage."""
    two = optuna.create_study(study_name="two-goals", storage=url, directions=["minimize", "maximize"])
    two.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 2), n_trials=2)
    loss = optuna.create_study(study_name="loss", storage=url, direction="minimize")
    loss.add_trials([create_trial(value=value) for value in (0.5, -math.inf, 0.25, math.inf)])
    pruned = create_trial(state=TrialState.PRUNED, intermediate_values={1: math.nan, 2: math.inf}, user_attrs={"large": "x" * 1_000_000})
    loss.add_trials([pruned, create_trial(state=TrialState.FAIL)])
    loss.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    for name in NAMES:
        optuna.create_study(study_name=name, storage=url)


def damaged_studies(url: str, database: Path) -> None:
    """What is left of studies whose records somebody has changed."""
    optuna.create_study(study_name="no-text", storage=url).set_user_attr(StudyKey.FILE, 5)
    config = optuna.create_study(study_name="no-config", storage=url, direction="maximize")
    config.add_trial(create_trial(value=0.5, user_attrs={TrialKey.RUN: "{", TrialKey.ATTEMPTS: 7}))
    optuna.create_study(study_name="no-json", storage=url).set_user_attr("mine", "x")
    optuna.create_study(study_name="no-state", storage=url).add_trial(create_trial(value=0.5))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = '{' WHERE key = 'mine'")
        connection.execute("UPDATE trials SET state = 'LOST' WHERE trial_id = (SELECT max(trial_id) FROM trials)")
        connection.commit()


@pytest.fixture
def shared(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The current folder, with a search that has ended."""
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(runs=Path("runs"))
    workspace.paths.folder.mkdir()
    workspace.paths.database.write_bytes(empty_database.read_bytes())
    stored_study(tmp_path, storage=workspace.url)
    return workspace


def run(*arguments: str) -> None:
    app(args=list(arguments), standalone_mode=False)


def test_ls_lists_every_study_and_says_which_cannot_be_read(shared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    foreign_studies(shared.url)
    damaged_studies(shared.url, shared.paths.database)
    run("ls", "--json")
    said = capsys.readouterr()
    rows = {row["study"]: row for row in json.loads(said.out)}
    assert set(rows) == {"small", "two-goals", "loss", *NAMES, "no-text", "no-config", "no-json", "no-state"}
    assert (rows["small"]["complete"], rows["two-goals"]["complete"], rows["loss"]["complete"]) == (12, 2, 4)
    assert rows["small"]["best"] > 0
    assert rows["two-goals"]["best"] is None
    assert rows["no-config"]["best"] == 0.5
    assert "'no-state' is damaged" in said.err
    run("ls")
    said = capsys.readouterr()
    assert "-inf" in said.out
    assert "\x1b" not in said.out


def test_a_search_is_shown_as_if_it_were_alone(shared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run("show", "small")
    alone = capsys.readouterr().out
    foreign_studies(shared.url)
    damaged_studies(shared.url, shared.paths.database)
    run("show", "small")
    assert capsys.readouterr().out == alone
    run("report", "small")
    assert shared.paths.study("small").report.exists()


@pytest.mark.parametrize("name", ["small.finalists", "small.explain"])
def test_a_search_is_shown_without_its_damaged_follow_up(
    name: str, shared: Workspace, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    optuna.create_study(study_name=name, storage=shared.url).set_user_attr(StudyKey.PLAN, '{"kind": "finalists"}')
    run("show", "small")
    assert "Best: trial" in capsys.readouterr().out
    run("report", "small")
    assert f"left out: the stored record of the study '{name}' is damaged" in caplog.text


def test_the_dashboard_is_brought_up_to_date_whatever_else_is_in_the_storage(shared: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    damaged_studies(shared.url, shared.paths.database)
    foreign_studies(shared.url)
    stored_study(Path.cwd(), name="last", storage=shared.url)
    sync = DashboardSync(shared, only=None)
    sync.sync_all()
    sync.sync_all()
    store = shared.open()
    for name in ("small", "last"):
        assert "Leaderboard" in get_note(store.load(name))
    assert sorted(record.args[0] for record in caplog.records if record.args) == ["no-json", "no-text"]  # each once
    sync.stop()


def test_the_dashboard_serves_every_study_of_another_program(shared: Workspace) -> None:
    foreign_studies(shared.url)
    store = shared.open(read_only=True)
    served = make_app(
        store, shared.paths.artifacts, AccessPolicy(host="127.0.0.1", names=frozenset({"localhost"}), token=None, allow_edit=False)
    )

    def ask(path: str) -> bytes:
        environ = {"REQUEST_METHOD": "GET", "HTTP_HOST": "localhost", "SERVER_NAME": "x", "SERVER_PORT": "1", "PATH_INFO": path}
        answers: list[str] = []
        streams = {"wsgi.url_scheme": "http", "wsgi.errors": io.StringIO(), "wsgi.input": io.BytesIO()}
        body = b"".join(served({**environ, **streams}, lambda status, *_: answers.append(status)))
        assert answers == ["200 OK"], (path, answers, body[:500])
        return body

    names = store.study_names()
    assert [study["study_name"] for study in json.loads(ask("/api/studies"))["study_summaries"]] == names
    for name in names:
        json.loads(ask(f"/api/studies/{get_study_id(store.load(name))}"))


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]], ids=str)
def test_an_empty_study_of_another_program_is_not_taken_over(
    directions: list[str], workspace: Workspace, study_file: Callable[..., StudyFile]
) -> None:
    workspace.open_or_create().dispose()
    optuna.create_study(study_name="small", storage=workspace.url, directions=directions)
    with pytest.raises(StudyNotFoundError, match="'small' was not made by hpsearch"):
        prepare_search(study_file(), workspace)


def test_finalists_do_not_go_into_a_study_of_another_program(shared: Workspace, tmp_path: Path) -> None:
    theirs = optuna.create_study(study_name="small.finalists", storage=shared.url)
    theirs.add_trial(create_trial(value=0.5))
    with pytest.raises(StudyNotFoundError, match=r"'small.finalists' was not made by hpsearch"):
        run("finalists", "small", "--top", "1", "--seeds", "2")
    assert optuna.load_study(study_name="small.finalists", storage=shared.url).user_attrs == {}
