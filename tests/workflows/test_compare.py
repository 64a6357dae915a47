"""Rules of which models can be compared, and of the sentence about the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from hpsearch import configure
from hpsearch.analysis.metrics import Predictions
from hpsearch.config.registration import load_component_file
from hpsearch.errors import UsageError
from hpsearch.storage.records import TrialKey, read_study, read_trial, read_trials
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.compare import (
    EvaluatedModel,
    ImageSet,
    ModelComparison,
    UntrainedModel,
    compare_models,
    find_model,
    require_same_images,
)
from hpsearch.workflows.export import best_config
from hpsearch.workflows.run import find_study_file, prepare_search
from tests.support.synthetic_data import change_trial


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def exported(workspace: Workspace, number: int, *changes: tuple[str, str], name: str = "best.toml") -> str:
    """Write a trial's config with some of its text replaced, and return the file."""
    load_component_file(Path("stripes.py"))
    study = workspace.open().load("stripes")
    text = best_config(read_trial(study, number), read_study(study)).to_toml()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path(name).write_text(text)
    return name


def trained(side: EvaluatedModel | UntrainedModel) -> EvaluatedModel:
    """The model of a config after its training."""
    assert isinstance(side, UntrainedModel)
    return side.train(device="cpu", show=lambda epoch: None)


def pruned(workspace: Workspace) -> int:
    return next(trial.number for trial in read_trials(workspace.open().load("stripes")) if trial.state == "pruned")


def test_a_config_has_the_predictions_of_its_stored_trial(stripes: Workspace) -> None:
    side, trial = find_model(exported(stripes, 0), stripes), find_model("stripes/0", stripes)
    assert isinstance(side, EvaluatedModel)
    assert isinstance(trial, EvaluatedModel)
    assert (side.label, side.source, side.images) == ("best.toml", "stripes/0", trial.images)
    assert numpy.array_equal(side.predictions.predicted, trial.predictions.predicted)


@pytest.mark.parametrize(
    "change",
    [
        ("epochs = 3", "epochs = 2"),
        ("split_seed = 3", "split_seed = 4"),
        ('study = "stripes"', 'study = "gone"'),
        ("trial = 0", "trial = 99"),
    ],
)
def test_a_config_without_a_stored_trial_must_be_trained(stripes: Workspace, change: tuple[str, str]) -> None:
    assert isinstance(find_model(exported(stripes, 0, change), stripes), UntrainedModel)


def test_a_trained_config_has_the_predictions_of_its_trial(stripes: Workspace, tmp_path: Path) -> None:
    side = trained(find_model(exported(stripes, 0, ('study = "stripes"', 'study = "gone"')), stripes))
    trial = find_model("stripes/0", stripes)
    assert isinstance(trial, EvaluatedModel)
    assert compare_models(side, trial).found.only_first == compare_models(side, trial).found.only_second == 0
    assert numpy.array_equal(side.predictions.confidence, trial.predictions.confidence)
    assert compare_models(trial, side).metrics[0].classes[0].name == "across"


def test_the_config_of_a_pruned_trial_is_trained_to_its_end(stripes: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no predictions: it was pruned after epoch \d") as caught:
        find_model(f"stripes/{pruned(stripes)}", stripes)
    assert "hpsearch export stripes" in caught.value.hint
    side = trained(find_model(exported(stripes, pruned(stripes)), stripes))
    assert len(side.predictions.label) == 100


def test_another_split_is_refused_before_anything_is_trained(stripes: Workspace) -> None:
    other = find_model(exported(stripes, 0, ("split_seed = 3", "split_seed = 4")), stripes)
    with pytest.raises(UsageError, match="are measured on different validation images of stripes: split "):
        require_same_images(find_model("stripes/0", stripes), other)


def test_a_copy_has_the_predictions_of_where_it_was_trained(stripes: Workspace) -> None:
    for name, source in (("second", "stripes"), ("third", "second")):
        text = Path("stripes.toml").read_text().replace('name = "stripes"', f'name = "{name}"')
        Path(f"{name}.toml").write_text(f'{text}\n[warm_start]\nfrom = ["{source}"]\n')
        study = prepare_search(find_study_file(f"./{name}.toml", stripes), stripes).study
    copy = next(trial for trial in read_trials(study) if trial.value == 1.0 and trial.copy_of)
    first = next(trial for trial in read_trials(stripes.open().load("stripes")) if trial.run == copy.run)
    side, original = find_model(f"third/{copy.number}", stripes), find_model(f"stripes/{first.number}", stripes)
    assert isinstance(side, EvaluatedModel)
    assert isinstance(original, EvaluatedModel)
    assert numpy.array_equal(side.predictions.confidence, original.predictions.confidence)


def test_a_trial_whose_predictions_are_lost_is_told_how_to_go_on(stripes: Workspace) -> None:
    stripes.paths.study("stripes").trial(0).predictions.unlink()
    with pytest.raises(UsageError, match=r"it is complete, but '.*predictions\.npz' is missing"):
        find_model("stripes/0", stripes)
    assert isinstance(find_model(exported(stripes, 0), stripes), UntrainedModel)


def test_trials_of_different_splits_have_different_images(stripes: Workspace) -> None:
    change_trial(stripes.runs.parent, 0, TrialKey.RUN, lambda run: {**run, "split_hash": "0" * 64})
    with pytest.raises(UsageError, match="split 000000000000… and "):
        require_same_images(find_model("stripes/0", stripes), find_model("stripes/5", stripes))


def _side(label: str, right: list[bool]) -> EvaluatedModel:
    labels = numpy.zeros(len(right), dtype=numpy.int64)
    guesses = numpy.where(right, 0, 1)
    predictions = Predictions(label=labels, predicted=guesses, confidence=numpy.full(len(right), 0.9), classes=("a", "b"))
    return EvaluatedModel(label=label, config=configure(), images=ImageSet(dataset="d", split="s"), predictions=predictions)


def _compared(both: int, first: int, second: int) -> ModelComparison:
    return compare_models(
        _side("A", [True] * both + [True] * first + [False] * second), _side("B", [True] * both + [False] * first + [True] * second)
    )


@pytest.mark.parametrize(
    ("both", "first", "second", "sentence"),
    [
        (900, 80, 20, "A is better by 6.00 ± 1.93 points (p < 0.0001)."),
        (900, 20, 40, "B is better by 2.08 ± 1.59 points (p = 0.013)."),
        (900, 12, 10, "No difference shown: A is ahead of B by 0.22 ± 1.02 points, which may well be chance (p = 0.83)."),
        (900, 10, 10, "No difference shown: both classify the same number of images correctly (p = 1)."),
        (900, 0, 0, "No difference shown: both classify the same images correctly."),
    ],
)
def test_a_sentence_reads_the_result(both: int, first: int, second: int, sentence: str) -> None:
    compared = _compared(both, first, second)
    assert compared.sentence == sentence
    assert compared.is_significant == ("better" in sentence)


def test_the_content_of_a_component_file_is_a_setting_and_its_path_is_not() -> None:
    from hpsearch.config.components import ComponentFile

    def with_file(path: str, sha256: str) -> EvaluatedModel:
        side = _side("A", [True])
        return replace(side, config=replace(side.config, component_files=(ComponentFile(path=Path(path), sha256=sha256),)))

    assert compare_models(with_file("here/own.py", "1" * 64), with_file("there/own.py", "1" * 64)).settings == {}
    assert compare_models(with_file("own.py", "1" * 64), with_file("own.py", "2" * 64)).settings == {
        "component_files.own.py": ("1" * 12, "2" * 12)
    }
