"""Rules of asynchronous successive halving: who goes on, who is paused, and what becomes of paused trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.leaderboard import make_leaderboard
from hpsearch.config.epoch import Epoch, Rung
from hpsearch.config.sections import Budget, Pruner
from hpsearch.config.study_file import StudyFile
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import StorageError, StudyFileError
from hpsearch.search.halving import Halving
from hpsearch.search.sampler import SpaceSampler
from hpsearch.search.study_monitor import StudyMonitor
from hpsearch.search.worker import Interrupted, Worker
from hpsearch.storage.records import BY_HAND, TrialKey, TrialRow, read_trials
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import EPOCH_LOG, accuracy, make_fake_trainer, train

Make = Callable[..., Worker]
Searched = Callable[..., Search]
ASHA = ('kind = "none"', 'kind = "asha"\nrungs = [0.12, 0.25, 0.5]')
LONGER = ("epochs = { int = [2, 4] }", "epochs = { int = [3, 9] }")
MANY = ("trials = 8", "trials = 20")
FEW = ("trials = 8", "trials = 18")
RANDOM = ("startup_trials = 4", 'kind = "random"')


def trials_of(search: Search) -> list[FrozenTrial]:
    return search.study.get_trials(deepcopy=False)


def wanted_epochs(row: TrialRow) -> int:
    assert row.config is not None
    return row.config.epochs


def rule(file: StudyFile) -> Halving:
    found = Halving.of(file.pruner, file.space)
    assert found is not None
    return found


@pytest.mark.parametrize("rungs", [(0.5,), (0.04, 0.11, 0.33), (0.001, 0.01, 0.02, 0.9)])
def test_rungs_never_fall_and_never_lie_behind_the_last_epoch(study_file: Callable[..., StudyFile], rungs: tuple[float, ...]) -> None:
    halving = Halving(space=study_file().space, rungs=rungs, reduction_factor=2)
    for epochs in range(1, 200):
        positions = halving.positions(epochs)
        assert len(positions) == len(rungs)
        assert positions[0] > 0
        assert list(positions) == sorted(positions)
        assert positions[-1] <= epochs
        assert all(position < 1 or position == int(position) for position in positions)
        assert halving.partial_epochs(epochs) == tuple(position for position in positions if position < 1)


def by_the_book(
    search: Search, configs: Sequence[TrainConfig], exempt: set[int], models: Sequence[str]
) -> dict[int, float]:  # a plain list of the accuracies at each rung, written without the code under test
    """Return how far each trial must be trained by one worker: algorithm 2 of the paper, with a trial that wins its rung going on at once."""
    halving = rule(search.file)
    rungs: dict[tuple[str, int], dict[int, float]] = {}
    reached: dict[int, float] = {}
    paused: dict[int, int] = {}

    def advance(number: int, level: int) -> None:
        """Train a trial beyond rung `level`, until it is paused or complete."""
        config = configs[number]
        for next_level in range(level + 1, len(halving.rungs)):
            position = halving.positions(config.epochs)[next_level]
            scores = rungs.setdefault((models[number], next_level), {})
            scores[number] = accuracy(config, position)
            reached[number] = position
            best = sorted(scores, key=lambda other: (-scores[other], other))[: len(scores) // 2]
            if number not in best and number not in exempt:
                paused[number] = next_level
                return
        reached[number] = config.epochs

    def promote(at_least: int) -> bool:
        for level in reversed(range(len(halving.rungs))):
            winners = []
            for (_, there), scores in rungs.items():
                best = sorted(scores, key=lambda other: (-scores[other], other))
                winners += [
                    (scores[number], -number)
                    for number in best[: max(at_least, len(scores) // 2)]
                    if there == level and paused.get(number) == level
                ]
            if winners:
                number = -max(winners)[1]
                advance(number, paused.pop(number))
                return True
        return False

    for number in range(len(configs)):
        advance(number, -1)
        last = number == len(configs) - 1
        while promote(int(last)):
            pass
    return reached


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_one_worker_does_what_the_paper_says(searched: Searched, make_worker: Make, seed: int) -> None:
    search = searched(ASHA, LONGER, MANY, RANDOM, ("seed = 3", f"seed = {seed}"))
    make_worker(search).work()
    rows = read_trials(search.study)
    configs = [row.config for row in rows if row.config is not None]
    assert len(configs) == 20
    wanted = by_the_book(search, configs, {0}, [row.model for row in rows])
    assert {row.number: row.trained_epochs for row in rows} == wanted
    assert {row.state for row in rows} == {"complete", "pruned"}
    assert len({row.trained_epochs for row in rows}) > 4  # some at each rung, and some to the end


def test_a_paused_trial_goes_on_from_its_checkpoint_under_its_number(
    searched: Searched, make_worker: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(EPOCH_LOG, str(tmp_path / "notes"))
    search = searched(ASHA, LONGER, MANY, RANDOM)
    make_worker(search).work()
    promoted = [trial for trial in trials_of(search) if len(trial.user_attrs[TrialKey.ATTEMPTS]) > 1]
    assert promoted
    parts = (tmp_path / "notes").read_text().splitlines()
    assert len(set(parts)) == len(parts)
    assert len(parts) == sum(len(trial.intermediate_values) + len(trial.user_attrs.get(TrialKey.RUNGS, ())) for trial in trials_of(search))


def test_nothing_is_left_of_a_trial_that_was_never_promoted_but_its_record(searched: Searched, make_worker: Make) -> None:
    search = searched(ASHA, LONGER, MANY, RANDOM)
    make_worker(search).work()
    paths = search.workspace.paths.study(search.file.name)
    ended = [row for row in read_trials(search.study) if row.state == "pruned"]
    assert ended
    for row in ended:
        assert row.end == {"reason": "asha"}
        assert row.value == (row.epochs[-1].val_accuracy if row.epochs else None)
        assert row.rungs or row.epochs
        assert not paths.trial(row.number).checkpoint.exists()


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_however_small_the_budget_a_trial_is_complete(searched: Searched, make_worker: Make, trials: int) -> None:
    text = searched(ASHA, LONGER, MANY, RANDOM).file.path.read_text()
    search = searched(ASHA, LONGER, RANDOM, ("trials = 8", f"trials = {trials}"), (text[text.index("[[baseline]]") :], ""))
    make_worker(search).work()
    assert [trial.state for trial in trials_of(search)].count(TrialState.COMPLETE) >= 1
    assert len(trials_of(search)) == trials
    assert search.is_spent


def test_a_baseline_and_a_trial_by_hand_are_never_paused(searched: Searched, make_worker: Make) -> None:
    search = searched(ASHA, LONGER, MANY, RANDOM)
    # The worst learning rate, so that the trial would be paused at each rung.
    point = {"model": "lenet5", "optimizer": "sgd", "epochs": 9, "sgd.lr": 1e-3}
    search.study.enqueue_trial(point, user_attrs={TrialKey.ORIGIN: BY_HAND})
    make_worker(search).work()
    origins = {row.origin: row.state for row in read_trials(search.study) if row.origin}
    assert origins == {"baseline": "complete", BY_HAND: "complete"}


def test_the_models_have_rungs_of_their_own(searched: Searched, make_worker: Make) -> None:
    search = searched(ASHA, LONGER, MANY, RANDOM)
    make_worker(search).work()
    complete = [row for row in read_trials(search.study) if row.state == "complete" and not row.origin]
    # The formula gives the CNN two points more, so LeNet-5 would lose at each rung.
    assert {row.model for row in complete} == {"cnn", "lenet5"}


@pytest.mark.parametrize("epochs", [20, 41])
def test_a_budget_of_epochs_counts_parts_of_epochs_and_is_kept(searched: Searched, make_worker: Make, epochs: int) -> None:
    search = searched(ASHA, LONGER, RANDOM, ("trials = 8", f"epochs = {epochs}"))
    make_worker(search).work()
    spent = sum(row.trained_epochs for row in read_trials(search.study))
    assert epochs <= spent < epochs + 9
    assert search.is_spent
    assert len(trials_of(search)) > epochs / 4


def test_no_trial_starts_and_none_is_promoted_when_the_time_is_over(searched: Searched, make_worker: Make) -> None:
    search = searched(ASHA, LONGER, RANDOM, ("trials = 8", 'trials = 500\ntime = "1m"'))
    make_worker(search, now=lambda: 2.0 * len(trials_of(search))).work()  # each trial takes two seconds
    rows = read_trials(search.study)
    assert 10 < len(rows) < 60
    assert {row.state for row in rows} == {"complete", "pruned"}


class Stop:
    """A trainer that interrupts its worker after some parts of epochs."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def train(self, config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch | Rung]:
        for each in train(config, checkpoint, owner, rungs):
            self.parts -= 1
            if self.parts < 0:
                raise Interrupted
            yield each


@pytest.mark.parametrize("parts", [2, 9])
def test_a_search_that_was_stopped_promotes_the_same_trials(searched: Searched, make_worker: Make, parts: int) -> None:
    whole = searched(ASHA, LONGER, FEW)
    make_worker(whole).work()
    broken = searched(ASHA, LONGER, FEW, ('name = "small"', 'name = "broken"'))
    for stop_after in range(parts, parts + 5):  # what was trained before is yielded again, so a fixed number would stop at the same part
        make_worker(broken, make_fake_trainer(Stop(stop_after).train)).work()
    assert any(not trial.state.is_finished() for trial in trials_of(broken))
    make_worker(broken).work()
    seen = [
        [(row.number, row.state, row.value, row.trained_epochs, row.params) for row in read_trials(search.study)]
        for search in (whole, broken)
    ]
    assert seen[0] == seen[1]


def stopped_with_paused_trials(searched: Searched, make_worker: Make) -> Search:
    search = searched(ASHA, LONGER, MANY, RANDOM)
    make_worker(search, make_fake_trainer(Stop(25).train)).work()
    assert any(row.state == "paused" for row in read_trials(search.study))
    return search


def test_without_the_rule_paused_trials_go_on_to_their_end(searched: Searched, make_worker: Make) -> None:
    stopped_with_paused_trials(searched, make_worker)
    again = searched(LONGER, MANY, RANDOM)
    make_worker(again).work()
    assert {(row.state, len(row.epochs) == wanted_epochs(row)) for row in read_trials(again.study)} == {("complete", True)}


def test_a_worker_of_one_trial_trains_a_paused_trial_to_its_end(searched: Searched, make_worker: Make) -> None:
    search = stopped_with_paused_trials(searched, make_worker)
    paused = next(row.number for row in read_trials(search.study) if row.state == "paused")
    assert make_worker(search, only_trial=paused).work() == 1
    assert read_trials(search.study)[paused].state == "complete"


def test_two_workers_share_the_rungs(searched: Searched, make_worker: Make) -> None:
    search = searched(ASHA, LONGER, MANY, RANDOM)
    first, second = make_worker(search, make_fake_trainer(Stop(25).train), name="a"), make_worker(search, name="b")
    first.work()
    second.work()
    rows = read_trials(search.study)
    assert len(rows) == 20
    assert {row.state for row in rows} == {"complete", "pruned"}


def test_a_sampler_learns_from_a_paused_trial_as_from_a_pruned_one(
    searched: Searched, make_worker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = stopped_with_paused_trials(searched, make_worker)
    halving = rule(search.file)
    seen: list[FrozenTrial] = []

    def infer(sampler: RandomSampler, study: Any, trial: FrozenTrial) -> dict[str, Any]:
        seen.extend(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
        return {}

    monkeypatch.setattr(RandomSampler, "infer_relative_search_space", infer)
    search.study.sampler = SpaceSampler(
        search.file.space, search.file.sampler, Budget(trials=50), seed=3, n_images=1000, accept=lambda _: True, halving=halving
    )
    paused = {row.number: row for row in read_trials(search.study) if row.state == "paused"}
    trial = optuna.Trial(search.study, search.study._storage.create_new_trial(search.study._study_id))
    search.file.space.sample(trial)
    assert {each.number for each in seen} == paused.keys()
    for each in seen:
        (step,), (value,) = each.intermediate_values.keys(), each.intermediate_values.values()
        row = paused[each.number]
        assert wanted_epochs(row) * halving.rungs[step] == pytest.approx(row.trained_epochs, abs=0.5)
        assert value == (row.epochs[-1] if row.epochs else row.rungs[-1]).val_accuracy


def test_a_value_at_a_rung_that_is_no_accuracy_fails_the_trial(searched: Searched, make_worker: Make) -> None:
    def broken(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch | Rung]:
        for each in train(config, checkpoint, owner, rungs):
            yield replace(each, val_accuracy=math.nan) if isinstance(each, Rung) else each

    search = searched(ASHA, LONGER, RANDOM, ("trials = 8", "trials = 2"))
    make_worker(search, make_fake_trainer(broken)).work()
    assert [trial.state for trial in trials_of(search)] == [TrialState.FAIL] * 2


def test_other_pruners_do_not_take_the_keys_of_asha() -> None:
    assert Pruner(kind="asha").rungs == [0.04, 0.11, 0.33]
    with pytest.raises(ValueError, match='kind = "median" does not take `rungs`'):
        Pruner(kind="median", rungs=[0.5])


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ("[0.5, 0.1]", "pruner.rungs: must rise, but got [0.5, 0.1]"),
        ("[0.1, 0.1]", "pruner.rungs: must rise, but got [0.1, 0.1]"),
        ("[]", "pruner.rungs: must have at least 1 item"),
        ("[1.0]", "pruner.rungs.0: must be below 1, but got 1.0"),
        ("[0.0]", "pruner.rungs.0: must be above 0, but got 0.0"),
        ("0.5", "pruner.rungs: must be a list, but got 0.5"),
    ],
)
def test_rungs_that_are_none_are_refused(study_file: Callable[..., StudyFile], rungs: str, message: str) -> None:
    with pytest.raises(StudyFileError) as error:
        study_file(('kind = "none"', f'kind = "asha"\nrungs = {rungs}'))
    assert message in error.value.message


def test_rungs_at_the_same_epoch_count_once(searched: Searched, make_worker: Make) -> None:
    search = searched(('kind = "none"', 'kind = "asha"\nrungs = [0.4, 0.41, 0.42]'), LONGER, RANDOM, FEW)
    make_worker(search).work()
    assert {row.state for row in read_trials(search.study)} == {"complete", "pruned"}


def audited(search: Search) -> dict[int, float]:
    return {row.number: row.audited_at for row in read_trials(search.study) if row.audited_at is not None}


def test_the_audit_trains_some_of_the_trials_that_would_be_stopped(searched: Searched, make_worker: Make) -> None:
    plain = searched(ASHA, LONGER, MANY, RANDOM)
    make_worker(plain).work()
    stopped = {row.number: row.trained_epochs for row in read_trials(plain.study) if row.state == "pruned"}
    search = searched((ASHA[0], f"{ASHA[1]}\naudit = 0.3"), LONGER, MANY, RANDOM, ('name = "small"', 'name = "audited"'))
    make_worker(search).work()
    drawn = audited(search)
    assert drawn.items() <= stopped.items()  # they were stopped without the audit, at the same place
    assert 0 < len(drawn) < len(stopped)
    rows = read_trials(search.study)
    assert {row.number for row in rows if row.state == "pruned"} == stopped.keys() - drawn.keys()
    assert all(len(rows[number].epochs) == wanted_epochs(rows[number]) for number in drawn)
    assert search.is_spent
    board = make_leaderboard(rows, validation_images=100)
    assert board.audit is not None
    assert board.audit.trials == len(drawn)
    assert board.audit.wrong == len({ranked.trial.number for ranked in board.ranking[:3]} & drawn.keys())
    low, high = board.audit.interval
    assert low <= board.audit.wrong / len(drawn) <= high


def test_an_audit_of_all_stops_nothing(searched: Searched, make_worker: Make) -> None:
    search = searched((ASHA[0], f"{ASHA[1]}\naudit = 1.0"), LONGER, FEW, RANDOM)
    make_worker(search).work()
    assert {row.state for row in read_trials(search.study)} == {"complete"}


def test_the_audit_does_not_go_on_when_the_time_is_over(searched: Searched, make_worker: Make) -> None:
    search = searched((ASHA[0], f"{ASHA[1]}\naudit = 1.0"), LONGER, RANDOM, ("trials = 8", 'trials = 500\ntime = "1m"'))
    make_worker(search, now=lambda: 2.0 * len(trials_of(search))).work()  # each trial takes two seconds
    assert {row.state for row in read_trials(search.study)} == {"complete", "pruned"}
    assert audited(search) == {}


def test_the_audit_lets_trials_finish_that_another_pruner_would_stop(searched: Searched, make_worker: Make) -> None:
    median = ('kind = "none"', 'kind = "median"\nstartup_trials = 1\nwarmup_epochs = 0')
    plain = searched(median, LONGER, MANY, RANDOM)
    make_worker(plain).work()
    first = next(row for row in read_trials(plain.study) if row.state == "pruned")
    search = searched((median[0], f"{median[1]}\naudit = 1.0"), LONGER, MANY, RANDOM, ('name = "small"', 'name = "audited"'))
    make_worker(search).work()
    rows = read_trials(search.study)
    assert {row.state for row in rows} == {"complete"}
    assert rows[first.number].audited_at == len(first.epochs)


def test_an_interrupted_audit_goes_on(searched: Searched, make_worker: Make) -> None:
    changes = ((ASHA[0], f"{ASHA[1]}\naudit = 0.5"), LONGER, FEW)
    whole = searched(*changes)
    make_worker(whole).work()
    broken = searched(*changes, ('name = "small"', 'name = "broken"'))
    for stop_after in range(20, 110, 6):
        make_worker(broken, make_fake_trainer(Stop(stop_after).train)).work()
    make_worker(broken).work()
    seen = [[(row.state, row.value, row.audited_at) for row in read_trials(search.study)] for search in (whole, broken)]
    assert seen[0] == seen[1]
    assert audited(broken)


def test_failures_between_paused_trials_are_not_in_a_row(searched: Searched, make_worker: Make) -> None:
    def failing(config: TrainConfig, checkpoint: Path, owner: str, rungs: Sequence[float]) -> Iterator[Epoch | Rung]:
        if int(owner.rpartition("/")[2]) % 5 == 4:
            raise MemoryError
        yield from train(config, checkpoint, owner, rungs)

    search = searched(ASHA, LONGER, MANY, RANDOM)
    make_worker(search, make_fake_trainer(failing)).work()
    assert [row.number for row in read_trials(search.study) if row.state == "fail"] == [4, 9, 14, 19]


def test_a_budget_of_epochs_is_spent_however_short_the_trials_are(searched: Searched, make_worker: Make) -> None:
    short = ("epochs = { int = [2, 4] }", "epochs = { int = [1, 3] }")
    search = searched(ASHA, short, RANDOM, ("trials = 8", "epochs = 20"))
    make_worker(search).work()
    rows = read_trials(search.study)
    assert 20 <= sum(row.trained_epochs for row in rows) < 23
    assert len(rows) > 20
    assert search.is_spent


def test_the_audit_is_beyond_the_budget(searched: Searched, make_worker: Make) -> None:
    changes = ((ASHA[0], f"{ASHA[1]}\naudit = 0.5"), LONGER, RANDOM, ("trials = 8", "epochs = 20"))
    search = searched(*changes)
    make_worker(search).work()
    drawn = audited(search)
    assert drawn
    charged = sum(drawn.get(row.number, row.trained_epochs) for row in read_trials(search.study))
    assert 20 <= charged < 29
    assert StudyMonitor(search.store, search.study).read_progress().epochs == pytest.approx(charged)
    again = searched(*changes, epochs=40)
    assert not again.is_spent
    make_worker(again).work()
    assert len(trials_of(again)) > len(trials_of(search)) or len(audited(again)) > len(drawn)


def test_an_audit_promotes_nobody(searched: Searched, make_worker: Make) -> None:
    search = searched((ASHA[0], f"{ASHA[1]}\naudit = 1.0"), LONGER, MANY, RANDOM)
    make_worker(search).work()
    halving, drawn = rule(search.file), audited(search)
    assert drawn
    for trial in trials_of(search):
        if trial.number in drawn:
            assert not halving.must_pause(trial, trials_of(search))
            assert halving.as_sampled(trial) is trial


@pytest.mark.parametrize("damaged", ["x", {"at": 1}, None, {"at": [1], "promoted": False}, {"at": 0.2, "promoted": "no"}])
def test_a_damaged_pause_is_named(searched: Searched, make_worker: Make, damaged: object) -> None:
    search = stopped_with_paused_trials(searched, make_worker)
    paused = next(trial for trial in trials_of(search) if trial.user_attrs.get(TrialKey.PAUSE) and trial.state == TrialState.WAITING)
    search.study._storage.set_trial_user_attr(paused._trial_id, TrialKey.PAUSE, damaged)
    with pytest.raises(StorageError, match=f"the stored record of trial {paused.number} is damaged"):
        make_worker(search).work()


def test_a_trial_that_was_measured_at_no_present_rung_goes_on_to_the_next(searched: Searched, make_worker: Make) -> None:
    stopped_with_paused_trials(searched, make_worker)
    search = searched(('kind = "none"', 'kind = "asha"\nrungs = [0.7, 0.8]'), LONGER, MANY, RANDOM)
    stranded = [row.number for row in read_trials(search.study) if row.state == "paused"]
    make_worker(search).work()
    rows = read_trials(search.study)
    assert all(rows[number].trained_epochs >= round(0.7 * wanted_epochs(rows[number])) for number in stranded)


def test_a_warm_start_copies_neither_pauses_nor_audits(searched: Searched, make_worker: Make) -> None:
    source = searched((ASHA[0], f"{ASHA[1]}\naudit = 0.5"), LONGER, MANY, RANDOM)
    make_worker(source).work()
    assert audited(source)
    copied = searched(ASHA, LONGER, RANDOM, ('name = "small"', 'name = "copied"'), more='[warm_start]\nfrom = ["small"]\n')
    with_value = sum(row.value is not None for row in read_trials(source.study))
    assert f"{with_value} of the {with_value} finished trials of 'small' fit the space and were copied" in " ".join(copied.changed)
    assert audited(copied) == {}
    make_worker(copied).work()
    assert {row.state for row in read_trials(copied.study)} == {"complete", "pruned"}
