"""Rules of follow-up studies that are interrupted: the same command continues them, also with another plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpsearch.search.claim import UNNEEDED, Claim
from hpsearch.search.worker import Worker
from hpsearch.storage.records import TrialKey, TrialRow, read_trials, repeat_of
from hpsearch.workflows.repeats import find_verdict, prepare_explanation, prepare_finalists
from hpsearch.workflows.supervisor import Search

MakeWorker = Callable[..., Worker]


@pytest.fixture
def finished(searched: Callable[..., Search], make_worker: MakeWorker) -> Search:
    """A search of 8 trials that is finished."""
    search = searched()
    make_worker(search).work()
    return search


def interrupted(worker: Worker) -> Claim:
    """Claim a trial and release its lease, as the kernel does when the worker dies."""
    claim = worker.claimer.claim()
    assert claim is not None
    claim.lease.release()
    return claim


def rows(search: Search) -> list[TrialRow]:
    return read_trials(search.study)


def finalists(search: Search, *, top: int, seeds: int = 4) -> Search:
    return prepare_finalists(search.file, search.workspace, top=top, seeds=seeds)


@pytest.mark.parametrize("prepare", [prepare_finalists, prepare_explanation])
def test_an_interrupted_follow_up_study_continues(finished: Search, make_worker: MakeWorker, prepare: Callable[..., Search]) -> None:
    options = {"top": 2, "seeds": 4} if prepare is prepare_finalists else {"seeds": 2}
    dead: list[Claim] = []
    for n_done in (0, 3, 4):  # several runs of the first step, then a later step
        search = prepare(finished.file, finished.workspace, **options)
        assert search.requeued == tuple(claim.trial.number for claim in dead[-1:])
        worker = make_worker(search, name=f"worker-{n_done}")
        for _ in range(n_done):
            claim = worker.claimer.claim()
            assert claim is not None
            worker._run(claim)
            claim.lease.release()
        dead.append(interrupted(worker))
    last = prepare(finished.file, finished.workspace, **options)
    make_worker(last, name="last").work()
    trials = rows(last)
    assert {trial.state for trial in trials} == {"complete"}
    assert len({trial.repeat for trial in trials}) == len(trials)
    for claim in dead:
        assert trials[claim.trial.number].config == claim.config


def test_a_run_that_the_plan_no_longer_has_is_ended_and_not_trained(finished: Search, make_worker: MakeWorker) -> None:
    wide = finalists(finished, top=4)
    claims = [make_worker(wide, name=f"dead-{number}").claimer.claim() for number in range(4)]
    for claim in claims:
        assert claim is not None
        claim.lease.release()
    narrow = finalists(finished, top=1)
    assert len(narrow.requeued) == 4
    make_worker(narrow, name="heir").work()
    kept = {repeat_of(claim.trial)[0] for claim in claims[:1]} | {"trial 0"}  # the best, and the baseline
    for trial in rows(narrow)[:4]:
        assert trial.repeat is not None
        wanted = trial.repeat[0] in kept
        assert (trial.state, trial.end.get("reason")) == (("complete", None) if wanted else ("pruned", UNNEEDED))
        assert len(trial.epochs) == (trial.config.epochs if wanted and trial.config is not None else 0)
    assert any(trial.state == "pruned" for trial in rows(narrow))
    verdict = find_verdict("small", narrow.store)
    assert verdict is not None
    assert verdict.is_over
    assert verdict.failed == ()


def test_a_run_that_was_ended_is_trained_when_the_plan_has_it_again(finished: Search, make_worker: MakeWorker) -> None:
    wide = finalists(finished, top=4)
    for number in range(4):
        interrupted(make_worker(wide, name=f"dead-{number}"))
    make_worker(finalists(finished, top=1), name="narrow").work()
    again = finalists(finished, top=4)
    make_worker(again, name="wide").work()
    scored = [trial.repeat for trial in rows(again) if trial.state == "complete" and trial.repeat]
    assert len(set(scored)) == len(scored)
    verdict = find_verdict("small", again.store)
    assert verdict is not None
    assert verdict.is_over
    assert {name for name, _ in scored} == {each.candidate.name for each in verdict.finalists}
    assert len(verdict.finalists) == 5


def test_a_trial_that_version_0_1_left_without_a_config_is_replaced(finished: Search, make_worker: MakeWorker) -> None:
    explained = prepare_explanation(finished.file, finished.workspace, seeds=2)
    claim = interrupted(make_worker(explained, name="dead"))
    attributes = claim.trial.user_attrs
    explained.study._storage.set_trial_user_attr(claim.trial._trial_id, TrialKey.RUN, "{}")
    make_worker(prepare_explanation(finished.file, finished.workspace, seeds=2), name="heir").work()
    first = rows(explained)[0]
    assert (first.state, first.end["reason"]) == ("pruned", UNNEEDED)
    run = (attributes[TrialKey.CANDIDATE], attributes[TrialKey.REPEAT])
    assert [trial.state for trial in rows(explained) if trial.repeat == run] == ["pruned", "complete"]
