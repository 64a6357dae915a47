"""Best configs: files that need no study."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.config.best_config import BestConfig, read_best_config
from hpsearch.config.registration import load_component_file
from hpsearch.config.sections import Data
from hpsearch.config.space_parser import configure
from hpsearch.errors import ComponentError, ConfigError, UsageError

OWN = """
import hpsearch

@hpsearch.model("own", width=hpsearch.option(8, low=1))
def own(*, input_shape, classes, width):
    raise AssertionError("not built here")
"""


@pytest.fixture
def best() -> BestConfig:
    config = configure(model="lenet5", optimizer="sgd", lr=0.1, epochs=3, seed=7)
    return BestConfig(
        config=config,
        data=Data(train_images=20_000),
        split_seed=17,
        provenance={"study": "small", "trial": 4, "val_accuracy": 0.9, "device": None},
    )


@pytest.mark.parametrize("name", ["best.toml", "best.json"])
def test_the_file_reloads_to_the_identical_config(best: BestConfig, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(best.to_toml() if name.endswith("toml") else best.to_json())
    again = read_best_config(path)
    assert again.config == best.config
    assert again.config.digest == best.config.digest
    assert (again.data, again.split_seed) == (best.data, best.split_seed)


def test_every_option_has_a_value(best: BestConfig) -> None:
    table = tomllib.loads(best.to_toml())
    assert set(table["model"]) == {"name", *best.config.model.options}
    assert set(table["trainer"]) == {"epochs", "batch_size", "label_smoothing", "flip", "shift", "precision", "seed"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format = 1", "format = 2", "format must be 1"),
        ('name = "lenet5"', 'name = "lenet6"', "unknown model 'lenet6'"),
        ("dropout = 0.0", "dropout = 1.5", "lenet5: dropout must be a number"),
        ("dropout = 0.0", "drop = 0.1", "lenet5 takes no 'drop'"),
        ("seed = 7", "seed = true", "trainer.seed: must be a whole number, but got true"),
        ("validation_images = 10000", "validation_images = 0", "data.validation_images"),
        ("[provenance]", "[provenence]", "unknown key provenence"),
        ("format = 1", "format = ", "is not valid TOML"),
        ("format = 1", "format = true", "format must be 1"),
        ('name = "lenet5"', 'name = ["lenet5"]', "model.name: must be a string in quotes, but got ['lenet5']"),
        ("dropout = 0.0", 'dropout = "half"', "dropout must be a number"),
        ("lr = 0.1", "lr = -1", "lr must be"),
        ("lr = 0.1", "lr = inf", "lr must be"),
        ("epochs = 3", "epochs = 2.5", "epochs must be a whole number"),
        ("epochs = 3", "epochs = 1979-05-27", "epochs must be a whole number"),
        ("epochs = 3", "epochs = [3]", "epochs must be a whole number"),
        ("seed = 7", "seed = -7", "trainer.seed: must be at least 0"),
        ("[schedule]", "[shedule]", "unknown key shedule"),
        ('dataset = "fashion-mnist"', 'dataset = "fashion"', "unknown data set 'fashion'"),
        ("[provenance]", "[[component_files]]\npath = 3\n[provenance]", "component_files.0.path: must be a string in quotes, but got 3"),
        ("[provenance]", '[component_files]\npath = "x"\n[provenance]', "component_files: must be a list, but got"),
        ("[provenance]", '[[component_files]]\npath = "a\\u0000b.py"\nsha256 = "0"\n[provenance]', "is missing"),
        ("[provenance]", f'[[component_files]]\npath = "{"x" * 300}"\nsha256 = "0"\n[provenance]', "is missing"),
        ("[provenance]", "[provenance]\nversions = [1]", "provenance.versions: must be a table, but got [1]"),
        ("[provenance]", f"[provenance]\nown = {'[' * 20}{']' * 20}", "it nests deeper than 10 levels"),
        ("[provenance]", f"[provenance]\nown = {'[' * 20_000}", "it nests too deep"),
        ("[provenance]", f"[provenance]\n{'a.' * 3000}b = 1", "tables do not nest as deep as"),
        ("[provenance]", f"[provenance]\nown = '{'x' * 100_000}'", "more than 100,000 bytes"),
        ("[provenance]", '[[component_files]]\npath = "own.py"\nsha256 = "0"\n[provenance]', "the component file 'own.py' is missing"),
    ],
)
def test_an_invalid_file_is_refused_with_its_key(best: BestConfig, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "best.toml"
    assert old in best.to_toml()
    path.write_text(best.to_toml().replace(old, new))
    with pytest.raises(UsageError) as caught:
        read_best_config(path)
    assert caught.value.message.startswith("best.toml: ")
    assert words in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the best config '.*gone\.toml': No such file"):
        read_best_config(tmp_path / "gone.toml")


def test_the_component_file_must_be_the_one_it_was_made_with(best: BestConfig, tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    source.write_text(OWN)
    (component,) = load_component_file(source)
    config = configure(model="own", seed=1)
    made = replace(best, config=config)
    assert config.component_files == (component.file,)
    path = tmp_path / "best.toml"
    path.write_text(made.to_toml())
    assert read_best_config(path).config == config
    source.write_text(OWN + "# changed\n")
    with pytest.raises(ComponentError, match=r"best\.toml: the component file .* is not the one"):
        read_best_config(path)


def test_json_and_toml_have_the_same_content(best: BestConfig) -> None:
    assert json.loads(best.to_json()) == tomllib.loads(best.to_toml())


@pytest.mark.parametrize(
    ("own", "words"),
    [("[" * 20_000, "it nests too deep"), ("[" * 20 + "]" * 20, "it nests deeper than 10 levels"), ('"\\ud800"', "surrogates not allowed")],
)
def test_json_that_no_best_config_can_hold_is_refused(best: BestConfig, tmp_path: Path, own: str, words: str) -> None:
    path = tmp_path / "best.json"
    path.write_text(best.to_json().replace('"study": "small"', f'"own": {own}'))
    with pytest.raises(ConfigError, match=f"best.json: is not valid JSON: .*{words}"):
        read_best_config(path)


def test_null_is_written_nowhere(best: BestConfig, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(best.to_json().replace('"study": "small"', '"study": "small", "own": [null, {"a": null}]'))
    assert tomllib.loads(read_best_config(path).to_toml())["provenance"]["own"] == [{}]


def test_two_component_files_of_one_base_name_travel_with_the_config(best: BestConfig, tmp_path: Path) -> None:
    sources = [tmp_path / "made" / folder / "parts.py" for folder in ("models", "optimizers")]
    for source, text in zip(sources, (OWN, "import hpsearch\n@hpsearch.optimizer('slow')\ndef slow(parameters): ...\n"), strict=True):
        source.parent.mkdir(parents=True)
        source.write_text(text)
        load_component_file(source)
    made = replace(best, config=configure(model="own", optimizer="slow", seed=1))
    (tmp_path / "made" / "best.toml").write_text(made.to_toml())
    (tmp_path / "made").rename(tmp_path / "moved")
    again = read_best_config(tmp_path / "moved" / "best.toml")
    assert again.config.digest == made.config.digest
    assert [file.path for file in again.files] == [tmp_path / "moved" / folder / "parts.py" for folder in ("models", "optimizers")]
