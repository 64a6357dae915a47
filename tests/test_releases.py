"""Rules of what an earlier release left behind: a later one reads all of it, and goes on with the search where it stood.

Each folder of `tests/support/releases` holds a study in the middle of its budget; its README.md says how that release made it.
Plain Optuna reads what is stored. The command line does everything else.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from tests.support.synthetic_data import command

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = sorted(file.parent for file in (ROOT / "tests" / "support" / "releases").glob("*/study.toml"))
STATES = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
FOLLOW_UPS = ("stripes.finalists", "stripes.explain")
OUTSIDE_THE_BUDGET = {"hpsearch:retry_of", "hpsearch:copy_of"}
"""Attributes of a trial that the budget does not count."""
OTHER_RELEASE = {"hpsearch"}
"""What differs from the conditions on record wherever a later release trains; it is no reason for other figures."""


RENAMED = {"validation_loss": "val_loss", "validation_accuracy": "val_accuracy"}
"""Names of stored values that a later release gave up, by the names that it gave them."""


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key not in ("OPTUNA_STORAGE", "HPSEARCH_DATA")} | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "hpsearch", *arguments], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def said(folder: Path, *arguments: str) -> str:
    """What a command that must succeed says."""
    done = command(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(folder: Path, study: str = "stripes") -> optuna.Study:
    """A study as plain Optuna reads it."""
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'runs' / 'hpsearch.db'}")


def trials_of(folder: Path, study: str = "stripes") -> list[FrozenTrial]:
    return stored(folder, study).trials


def plan_of(folder: Path, study: str) -> dict[str, Any]:
    """What a linked study repeats."""
    plan: dict[str, Any] = json.loads(stored(folder, study).user_attrs["hpsearch:plan"])
    return plan


def last_of(state: TrialState, folder: Path) -> FrozenTrial:
    return [trial for trial in trials_of(folder) if trial.state == state][-1]


def best_of(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials, the best first."""
    return sorted((trial for trial in trials if trial.state == TrialState.COMPLETE), key=lambda trial: (-trial.values[0], trial.number))


def epochs_of(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The epochs that a trial has on record, with the names of today."""
    return [in_todays_names(epoch) for epoch in json.loads(trial.user_attrs.get("hpsearch:epochs", "[]"))]


def in_todays_names(epoch: dict[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in epoch.items()}


def checkpointed_epochs(folder: Path, number: int) -> list[dict[str, Any]]:
    """The epochs that lie in a trial's checkpoint: a line with its checksum, then what `torch.save` wrote."""
    _, _, content = (folder / "runs" / "stripes" / "trials" / f"{number:05d}" / "checkpoint").read_bytes().partition(b"\n")
    return [in_todays_names(epoch) for epoch in torch.load(io.BytesIO(content), weights_only=True)["content"]["epochs"]]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def release(request: pytest.FixtureRequest) -> Path:
    """What a release left behind, not to be touched."""
    return Path(request.param)


@pytest.fixture(scope="module")
def begun(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A copy of it in which the study file is run again: it begins early, and goes on while others are read."""
    folder = tmp_path_factory.mktemp("continued") / "study"
    shutil.copytree(release, folder)
    process = started(folder, "run", "study.toml", "--workers", "1")
    yield folder, process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def moved(release: Path, begun: tuple[Path, subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy, in which nothing is trained that is kept."""
    folder = tmp_path_factory.mktemp("moved") / "study"
    shutil.copytree(release, folder)
    said(folder, "check", "study.toml")  # from now on hpsearch knows that this user runs this component file
    return folder


@dataclass(frozen=True, kw_only=True)
class Continued:
    """The copy in which the search went on to its end.

    Attributes:
        done: what the command said.
        before, after: the trials of the study.
    """

    folder: Path
    done: subprocess.CompletedProcess[str]
    before: list[FrozenTrial]
    after: list[FrozenTrial]

    def both(self, state: TrialState) -> list[tuple[FrozenTrial, FrozenTrial]]:
        """The trials that stood in a state before, and what became of them."""
        return [(trial, self.after[trial.number]) for trial in self.before if trial.state == state]


@pytest.fixture(scope="module")
def continued(begun: tuple[Path, subprocess.Popen[str]], moved: Path) -> Continued:
    folder, process = begun
    return Continued(folder=folder, done=ended(process), before=trials_of(moved), after=trials_of(folder))


@pytest.fixture(scope="module")
def rerun(continued: Continued) -> dict[str, Any]:
    """The best trial of the release, trained again; the run has told the study where its files lie now."""
    best = best_of(continued.before)[0]
    done = command(continued.folder, "reproduce", "stripes", str(best.number), "--json")
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "exit code": done.returncode}


def test_no_release_is_left_out() -> None:
    assert "0.1" in [folder.name for folder in FOLDERS]


def test_a_release_left_a_trial_of_each_state(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "study")
    assert {trial.state for trial in trials_of(tmp_path / "study")} == set(STATES)


# Reading


def test_the_leaderboard_has_the_stored_values_the_verdict_and_the_reading_of_the_test_split(moved: Path) -> None:
    board = json.loads(said(moved, "show", "stripes", "--json"))
    trials = trials_of(moved)
    assert board["trials"] == {state.name.lower(): sum(trial.state == state for trial in trials) for state in STATES} | {"paused": 0}
    complete = {trial.number: trial.value for trial in trials if trial.state == TrialState.COMPLETE}
    assert {row["trial"]: row["val_accuracy"] for row in board["leaderboard"]} == complete
    assert board["finalists"]["is_over"]
    assert [reading["folder"] for reading in board["test_readings"]] == ["best-final"]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name.lower())
def test_a_trial_of_each_state_is_shown_with_its_epochs(moved: Path, state: TrialState) -> None:
    trial = last_of(state, moved)
    shown = said(moved, "show", "stripes", str(trial.number))
    assert shown.startswith(f"Trial {trial.number}")
    assert state.name.lower() in shown.splitlines()[0]
    assert [each for each in trial.intermediate_values.values() if f"{100 * each:.2f} %" not in shown] == []
    if state == TrialState.FAIL:
        end = trial.user_attrs["hpsearch:end"]
        assert f"Ended: {end['reason']}" in shown
        assert end["traceback"].strip().splitlines()[-1] in shown


def test_the_studies_are_listed_with_their_trials(moved: Path) -> None:
    listed = {row["study"]: row for row in json.loads(said(moved, "ls", "--json"))}
    assert set(listed) == {"stripes", *FOLLOW_UPS}
    for name, row in listed.items():
        trials = trials_of(moved, name)
        assert row["trials"] == len(trials)
        assert [row[state.name.lower()] for state in STATES] == [sum(each.state == state for each in trials) for state in STATES]


def test_a_report_is_written(moved: Path) -> None:
    said(moved, "report", "stripes", "-o", "page.html")
    page = (moved / "page.html").read_text(encoding="utf-8")
    assert tomllib.loads((moved / "study.toml").read_text())["description"] in page


def test_the_winner_is_exported_as_it_was_then(moved: Path) -> None:
    said(moved, "export", "stripes", "-o", "again.toml")
    then, now = (tomllib.loads((moved / name).read_text()) for name in ("best.toml", "again.toml"))
    for section in ("model", "optimizer", "schedule", "trainer", "data"):
        later = {"precision": "float32"} if section == "trainer" else {}  # the options that 0.1 did not have, as it trained
        assert now[section] == {**then[section], **later}
    assert [each["sha256"] for each in now["component_files"]] == [each["sha256"] for each in then["component_files"]]
    for fact in ("study", "trial", "val_accuracy", "fingerprint", "split_hash", "finalists", "versions"):
        assert now["provenance"][fact] == then["provenance"][fact]


def test_two_trials_are_compared_by_their_stored_predictions(moved: Path) -> None:
    first, second = best_of(trials_of(moved))[:2]
    found = json.loads(said(moved, "compare", f"stripes/{first.number}", f"stripes/{second.number}", "--json"))
    assert found["accuracy"] == pytest.approx([first.value, second.value])


def test_the_final_model_says_what_a_picture_is(moved: Path) -> None:
    (found,) = json.loads(said(moved, "predict", "best-final", "across.png", "--json"))
    assert found["class"] == "across"
    assert 0.5 < found["confidence"] <= 1


def test_finalists_that_are_over_give_their_verdict_at_once(moved: Path) -> None:
    before, plan = trials_of(moved, "stripes.finalists"), plan_of(moved, "stripes.finalists")
    top = sum(not candidate["is_baseline"] for candidate in plan["candidates"])
    verdict = json.loads(said(moved, "finalists", "study.toml", "--top", str(top), "--seeds", str(plan["seeds"]), "--json"))
    assert verdict["is_over"]
    assert verdict["winner"] == f"trial {tomllib.loads((moved / 'best.toml').read_text())['provenance']['trial']}"
    assert {each["name"] for each in verdict["finalists"]} == {candidate["name"] for candidate in plan["candidates"]}
    assert trials_of(moved, "stripes.finalists") == before


def test_an_explanation_that_is_over_is_given_at_once(moved: Path) -> None:
    before, plan = trials_of(moved, "stripes.explain"), plan_of(moved, "stripes.explain")
    goal, seeds = plan["goal_trial"], plan["seeds"]
    found = json.loads(said(moved, "explain", "study.toml", "--trial", str(goal), "--seeds", str(seeds), "--json"))
    assert (found["trial"], found["is_over"]) == (goal, True)
    changed = {name for name, value in plan["goal"].items() if plan["start"].get(name) != value}
    assert {step["parameter"] for step in found["steps"]} == {"", *changed}
    assert trials_of(moved, "stripes.explain") == before


# Going on


def test_the_search_goes_on_to_its_exact_budget(continued: Continued) -> None:
    assert continued.done.returncode == 0, continued.done.stderr
    assert "Traceback" not in continued.done.stderr
    assert [trial.number for trial in continued.after] == list(range(len(continued.after)))
    assert all(trial.state.is_finished() for trial in continued.after)
    counted = [trial for trial in continued.after if not OUTSIDE_THE_BUDGET & set(trial.user_attrs)]
    assert len(counted) == tomllib.loads((continued.folder / "study.toml").read_text())["budget"]["trials"]
    assert len(continued.after) > len(continued.before)


def test_what_had_ended_stays_as_it_was(continued: Continued) -> None:
    ended = [trial for trial in continued.before if trial.state.is_finished()]
    assert [continued.after[trial.number] for trial in ended] == ended


def test_linked_studies_stay_as_they_were(continued: Continued, moved: Path) -> None:
    for name in FOLLOW_UPS:
        assert trials_of(continued.folder, name) == trials_of(moved, name)


def test_an_interrupted_trial_goes_on_from_its_checkpoint_under_its_own_number(continued: Continued, release: Path) -> None:
    interrupted = continued.both(TrialState.RUNNING)
    assert interrupted
    for before, after in interrupted:
        known, kept = epochs_of(before), checkpointed_epochs(release, before.number)
        # Its worker died with an epoch in the checkpoint that the database had not: its time is told to the last digit by nothing else.
        assert len(kept) > len(known) > 0
        assert kept[: len(known)] == known
        assert epochs_of(after)[: len(kept)] == kept
        assert len(epochs_of(after)) > len(kept)
        assert after.params == before.params
        assert before.intermediate_values.items() <= after.intermediate_values.items()
        assert len(after.user_attrs["hpsearch:attempts"]) == len(before.user_attrs["hpsearch:attempts"]) + 1


def test_a_waiting_trial_keeps_what_it_has_and_is_trained(continued: Continued) -> None:
    waiting = continued.both(TrialState.WAITING)
    assert waiting
    for before, after in waiting:
        known = epochs_of(before)
        assert epochs_of(after)[: len(known)] == known
        assert len(epochs_of(after)) > len(known)
        assert after.params == (before.params or before.system_attrs["fixed_params"])


def test_a_finished_trial_is_reproduced(rerun: dict[str, Any]) -> None:
    # The documented outcomes: identical where the conditions are those on record, else perhaps only near.
    assert rerun["exit code"] == (0 if rerun["reproduced"] else 1)
    if set(rerun["differences"]) <= OTHER_RELEASE:
        assert rerun["verdict"] == "identical"
    else:
        assert rerun["verdict"] in ("identical", "within the spread", "different")
    assert all(epoch["then"]["number"] == epoch["epoch"] for epoch in rerun["epochs"])


def test_a_best_config_trains_to_the_number_on_record(moved: Path, rerun: dict[str, Any]) -> None:
    found = json.loads(said(moved, "train", "best.toml", "--json"))
    recorded = tomllib.loads((moved / "best.toml").read_text())["provenance"]["val_accuracy"]
    assert found["trial_val_accuracy"] == recorded
    same = found["validation"]["accuracy"] == recorded
    assert found["against_trial"] == "the same" if same else "points off" in found["against_trial"]
    if set(rerun["differences"]) <= OTHER_RELEASE:
        assert same
