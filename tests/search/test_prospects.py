"""A search that ends by itself, and models that get no more trials when they are clearly behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.config.sections import MIN_TRIALS, MIN_TRIALS_OF_MODEL
from hpsearch.search.worker import Worker
from hpsearch.storage.records import read_trials
from hpsearch.workflows.supervisor import Search
from tests.support.small_study import hpsearch

Searched = Callable[..., Search]
Make = Callable[..., Worker]

AUTO = ("trials = 8", 'trials = 200\nstop = "auto"')
UNTIL_BEHIND = ('balance = "model"', 'balance = "until_behind"')
MANY_IMAGES = ("validation_images = 100", "validation_images = 10000")
"""With 100 images nothing is ever clear."""


def trials_of_models(search: Search) -> Counter[str]:
    return Counter(row.model for row in read_trials(search.study))


def test_a_search_ends_when_further_trials_would_gain_too_little(searched: Searched, make_worker: Make) -> None:
    search = searched(AUTO)
    done = make_worker(search).work()
    assert MIN_TRIALS <= done < 200
    assert search.is_spent
    assert search.has_converged
    assert make_worker(searched(AUTO)).work() == 0
    goes_on = searched(("trials = 8", f"trials = {done + 3}"))
    assert not goes_on.is_spent
    assert make_worker(goes_on).work() == 3


def test_paused_trials_count_as_looked_at(searched: Searched, make_worker: Make) -> None:
    asha = ('kind = "none"', 'kind = "asha"')
    search = searched(AUTO, asha)
    make_worker(search).work()
    rows = read_trials(search.study)
    assert MIN_TRIALS <= len(rows) < 200
    assert all(row.is_finished for row in rows)
    assert sum(row.state == "complete" for row in rows) < MIN_TRIALS


def test_a_model_that_is_clearly_behind_gets_no_more_trials(searched: Searched, make_worker: Make) -> None:
    # The fake CNN is two points better, which 10,000 images show.
    search = searched(("trials = 8", "trials = 60"), UNTIL_BEHIND, MANY_IMAGES, ("startup_trials = 4", "startup_trials = 60"))
    make_worker(search).work()
    counts = trials_of_models(search)
    assert MIN_TRIALS_OF_MODEL <= counts["lenet5"] < 30 < counts["cnn"]
    assert sum(counts.values()) == 60
    order = [row.model for row in read_trials(search.study)]
    equal = order[: 2 * counts["lenet5"]]
    assert abs(equal.count("cnn") - equal.count("lenet5")) <= 1
    assert set(order[2 * counts["lenet5"] + 1 :]) == {"cnn"}


@pytest.mark.parametrize("changes", [(UNTIL_BEHIND,), (MANY_IMAGES,)], ids=["few images", "always"])
def test_other_models_stay_balanced(searched: Searched, make_worker: Make, changes: tuple[tuple[str, str], ...]) -> None:
    search = searched(("trials = 8", "trials = 60"), ("startup_trials = 4", "startup_trials = 60"), *changes)
    make_worker(search).work()
    assert set(trials_of_models(search).values()) == {30}


@pytest.mark.slow
def test_the_commands_say_why_a_search_ended_and_what_is_behind(folder: Path) -> None:
    study = folder / "small.toml"
    text = study.read_text()
    for change in (AUTO, UNTIL_BEHIND, MANY_IMAGES):
        text = text.replace(*change)
    study.write_text(text.replace("startup_trials = 4", "startup_trials = 200"))
    done = hpsearch(folder, "run", "small.toml", "--workers", "2", "--trials", "70")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "lenet5 is clearly behind cnn: the best of its " in said
    assert "The other trials went to cnn." in said
    assert "As many trials again would be expected to raise the best accuracy by about " in said
