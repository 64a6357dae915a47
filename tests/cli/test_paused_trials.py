"""Rules of what a user reads of a study that pauses trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.db_snapshot import stored_trials, wait_until
from tests.support.fake_trainer import EPOCH_SECONDS
from tests.support.forkserver import shared_server
from tests.support.small_study import STUDY, hpsearch

ASHA = (
    STUDY.replace('kind = "none"', 'kind = "asha"\nrungs = [0.12, 0.25, 0.5]')
    .replace("[2, 4]", "[3, 9]")
    .replace("trials = 8", "trials = 20")
)


@pytest.fixture
def asha(folder: Path) -> Path:
    (folder / "small.toml").write_text(ASHA)
    return folder


def test_trials_that_were_never_promoted_are_told_apart(asha: Path) -> None:
    done = hpsearch(asha, "run", "small.toml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    trials = {each["trial"]: each for each in (json.loads(hpsearch(asha, "show", "small", str(n), "--json").stdout) for n in range(20))}
    early = [number for number, trial in trials.items() if trial["state"] == "pruned" and not trial["epochs"]]
    assert early
    assert not any(f"trial {number} " in done.stderr for number in early)  # they have no result to show
    shown = hpsearch(asha, "show", "small", str(early[0])).stdout
    assert f"Trial {early[0]}: pruned" in shown
    assert "% of epoch 1; it then classified" in shown
    assert "Ended: it was paused, and others were better" in shown
    exported = hpsearch(asha, "export", "small", "--trial", str(early[0]), "-o", "early.toml")
    assert "% of epoch 1, where it was pruned" in exported.stdout
    assert "has no whole epoch on record" in hpsearch(asha, "reproduce", "small", str(early[0])).stderr
    page = (asha / "runs" / "small" / "report.html").read_text()
    assert "had no whole epoch when they were pruned" in page
    assert "no trial was interrupted" in page


def test_a_stopped_search_says_how_many_trials_are_paused(asha: Path) -> None:
    def paused() -> int:
        return sum(
            trial.state == "WAITING" and not trial.attributes.get("hpsearch:pause", {"promoted": True})["promoted"]
            for trial in stored_trials(asha)
        )

    output = asha / "output"
    run = shared_server("fake").start(asha, "run", "small.toml", "--workers", "1", output=output, **{EPOCH_SECONDS: "0.3"})
    assert wait_until(lambda: paused() >= 2, 60)
    assert hpsearch(asha, "stop", "small").returncode == 0
    run.wait(60)
    assert f", {paused()} paused" in output.read_text()
    row = json.loads(hpsearch(asha, "ls", "--json").stdout)[0]
    assert (row["paused"], row["running"]) == (paused(), 0)
