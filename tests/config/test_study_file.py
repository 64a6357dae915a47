"""Study files and the errors of invalid ones."""

from __future__ import annotations

import hashlib
import json
import random
import time
import tomllib
from pathlib import Path

import jsonschema
import pytest

from hpsearch.config.sections import parse_duration
from hpsearch.config.study_file import LARGEST_FILE, json_schema, load_study_file, parse_study_file, shipped_study_files, stored_hashes
from hpsearch.errors import ComponentError, StudyFileError, UsageError
from tests.support.bad_study_files import FILE, LATER_SECTIONS, MISTAKES, VALID, Mistake, study
from tests.support.mutated_files import mutated

MUTANTS = 2_400
"""Generated study files; `benchmarks/study_files.py` tries ten times as many."""
LONGEST_PARSE = 1.0
"""Most seconds to read any study file."""

SHIPPED = shipped_study_files()
WITHOUT_COMPONENTS = [path for path in SHIPPED if "use " not in path.read_text(encoding="utf-8")]


def write(folder: Path, mistake: Mistake) -> Path:
    for name, source in mistake.files:
        (folder / name).write_text(source, encoding="utf-8")
    path = folder / FILE
    path.write_text(mistake.text, encoding="utf-8")
    return path


@pytest.mark.parametrize("mistake", [*MISTAKES, *LATER_SECTIONS], ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_error_names_file_key_and_fix(mistake: Mistake, tmp_path: Path) -> None:
    path = write(tmp_path, mistake)
    with pytest.raises(UsageError) as caught:
        load_study_file(path)
    said = str(caught.value)
    assert FILE in said
    assert [words for words in mistake.says if words not in said] == [], said


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_error_is_two_short_printable_lines(mistake: Mistake, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_study_file(write(tmp_path, mistake))
    for line in (caught.value.message, caught.value.hint):
        assert line.isprintable()
        assert len(line) < 500 + len(str(tmp_path))


def test_mistakes_are_many_and_each_has_a_name() -> None:
    assert len(MISTAKES) >= 70
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)


def test_text_that_the_mistakes_change_is_valid(tmp_path: Path) -> None:
    assert parse_study_file(VALID, path=tmp_path / FILE).name == "study"
    assert tomllib.loads(study({})) == tomllib.loads(VALID)


# The file itself


def test_error_of_a_missing_file_suggests_one_in_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "fashion.toml").write_text(VALID)
    with pytest.raises(StudyFileError, match=r"fashoin\.toml.*No such file") as caught:
        load_study_file(tmp_path / "fashoin.toml")
    assert "'fashion.toml'" in caught.value.hint


def test_error_of_a_missing_file_in_an_empty_folder_suggests_init(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(StudyFileError) as caught:
        load_study_file(tmp_path / FILE)
    assert "hpsearch init" in caught.value.hint


def test_folder_is_not_a_study_file(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="directory"):
        load_study_file(tmp_path)


def test_path_with_nul_is_refused() -> None:
    with pytest.raises(StudyFileError, match="null byte"):
        load_study_file(Path("a\0.toml"))


def test_long_path_is_named_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="last-of-all"):
        load_study_file(tmp_path / ("x" * 90) / "last-of-all.toml")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encoding_than_utf8_is_refused(encoding: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(f"# Größe\n{VALID}".encode(encoding))
    with pytest.raises(StudyFileError, match=r"study\.toml: is not UTF-8") as caught:
        load_study_file(tmp_path / FILE)
    assert "Save it as UTF-8" in caught.value.hint


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(VALID.encode("utf-8-sig"))
    assert load_study_file(tmp_path / FILE).text == VALID


def test_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(VALID.replace("\n", "\r\n").encode())
    assert load_study_file(tmp_path / FILE).space == parse_study_file(VALID, path=tmp_path / FILE).space


def test_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(VALID + "#" * LARGEST_FILE)
    with pytest.raises(StudyFileError, match="too many"):
        load_study_file(tmp_path / FILE)


def test_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(StudyFileError, match="too many"):
        load_study_file(Path("/dev/zero"))


@pytest.mark.parametrize(
    "text",
    [
        "space." + "a." * 30_000 + "b = 1",
        "a = " + "[" * 40_000,
        "a = " + "{a=" * 20_000,
        "[[a]]\n" * 16_000,
        '"a".' * 20_000 + "b = 1",
        '"' * 99_000,
    ],
    ids=["dots", "brackets", "braces", "tables", "quoted-dots", "quotes"],
)
def test_hostile_nesting_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(StudyFileError):
        parse_study_file(text, path=Path(FILE))
    assert time.perf_counter() - started < LONGEST_PARSE


# Content


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_study_is_valid(path: Path) -> None:
    assert load_study_file(path).path == path.absolute()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_schema_accepts_the_shipped_studies(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), json_schema())


@pytest.mark.parametrize(
    "line", ["sed = 3", "budget.trials = 0", 'sampler.kind = "tpee"', "space.dropout = [0, 1]", "space.dropout.flaot = [0, 1]"]
)
def test_schema_refuses_an_invalid_line(line: str) -> None:
    table = {"name": "x", "budget": {"trials": 1}, "space": {}}
    for key, value in tomllib.loads(line).items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(table, json_schema())


def test_smallest_file_has_defaults_for_the_rest(tmp_path: Path) -> None:
    found = parse_study_file('name = "x"\nspace = {}\nbudget.trials = 3', path=tmp_path / FILE)
    assert (found.seed, found.data.dataset, found.sampler.kind, found.pruner.kind) == (0, "fashion-mnist", "tpe", "median")
    assert {parameter.name for parameter in found.space} == {"model", "optimizer", "schedule"}


def test_baseline_is_a_complete_point_of_the_space(tmp_path: Path) -> None:
    (baseline,) = parse_study_file(VALID, path=tmp_path / FILE).baselines
    assert dict(baseline) == {
        "model": "lenet5",
        "optimizer": "sgd",
        "schedule": "constant",
        "batch_size": 128,
        "dropout": 0.0,
        "epochs": 5,
        "sgd.lr": 0.05,
        "sgd.momentum": 0.9,
    }


def test_baseline_may_nest_its_keys_as_the_space_does(tmp_path: Path) -> None:
    text = study({"baseline": "sgd = { lr = 0.2 }"})
    assert parse_study_file(text, path=tmp_path / FILE).baselines[0]["sgd.lr"] == 0.2


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        ({"space": "dropout = { float = [0.0, 0.6] }"}, "space"),
        ({"data": "validation_images = 5_000"}, "data"),
        ({"": "seed = 18"}, "seed"),
        ({"": 'use = ["net.py"]'}, "component files"),
    ],
    ids=["space", "data", "seed", "files"],
)
def test_sections_that_change_trials_are_compared(edit: dict[str, str], part: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text('import hpsearch\n@hpsearch.model("net")\ndef net(**_): ...\n')
    old, new = (parse_study_file(text, path=tmp_path / FILE).comparable for text in (VALID, study(edit)))
    assert [key for key in old if old[key] != new[key]] == [part]


@pytest.mark.parametrize(
    "edit",
    [
        {"budget": "trials = 30"},
        {"sampler": 'kind = "random"'},
        {"pruner": 'kind = "none"'},
        {"": 'description = "x"'},
        {"limits": "parameters = 9"},
    ],
    ids=["budget", "sampler", "pruner", "description", "limits"],
)
def test_sections_that_do_not_change_trials_are_not_compared(edit: dict[str, str], tmp_path: Path) -> None:
    old, new = (parse_study_file(text, path=tmp_path / FILE).comparable for text in (VALID, study(edit)))
    assert old == new


def test_comparable_survives_json(tmp_path: Path) -> None:
    comparable = parse_study_file(VALID, path=tmp_path / FILE).comparable
    assert json.loads(json.dumps(comparable)) == comparable


def test_changed_component_file_is_not_comparable(tmp_path: Path) -> None:
    hashes = []
    for body in ("...", "pass"):
        source = f'import hpsearch\n@hpsearch.model("net")\ndef net(**_): {body}\n'
        (tmp_path / "net.py").write_text(source)
        found = parse_study_file(study({"": 'use = ["net.py"]'}), path=tmp_path / FILE)
        hashes.append(found.comparable["component files"])
        assert hashes[-1] == {"net.py": hashlib.sha256(source.encode()).hexdigest()}
    assert hashes[0] != hashes[1]


def test_component_files_are_compared_by_their_paths(tmp_path: Path) -> None:
    for folder in ("models", "data"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "parts.py").write_text(f"import hpsearch\nhpsearch.model('{folder}net')(lambda **_: None)\n")
    text = study({"": 'use = ["./models/parts.py", "data/parts.py"]'})
    path = tmp_path / "study.toml"
    hashes = parse_study_file(text, path=path).comparable["component files"]
    assert list(hashes) == ["models/parts.py", "data/parts.py"]
    (tmp_path / "models" / "parts.py").write_text("import hpsearch\nhpsearch.model('modelsnet')(lambda **_: 1)\n")
    changed = parse_study_file(text, path=path).comparable["component files"]
    assert [name for name in hashes if hashes[name] != changed[name]] == ["models/parts.py"]


@pytest.mark.parametrize(
    ("use", "stored", "known"),
    [
        (["own.py"], {"own.py": "1"}, {"own.py": "1"}),
        (["models/own.py", "../data.py"], {"own.py": "1", "data.py": "2"}, {"models/own.py": "1", "../data.py": "2"}),
        (["parts.py", "data/parts.py"], {"parts.py": "2"}, {"parts.py": "", "data/parts.py": "2"}),
        (["parts.py", "data/parts.py"], {"parts.py": "1", "data/parts.py": "2"}, {"parts.py": "1", "data/parts.py": "2"}),
        ([], {}, {}),
    ],
    ids=["0.1, beside", "0.1, in folders", "0.1, of one name", "now", "none"],
)
def test_hashes_that_version_0_1_stored_by_base_name_are_found(
    use: list[str], stored: dict[str, str], known: dict[str, str], tmp_path: Path
) -> None:
    assert stored_hashes(f"use = {use}", tmp_path / "study.toml", stored) == known


def test_two_component_files_with_one_name_are_refused_with_both(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text('import hpsearch\n@hpsearch.model("net")\ndef net(**_): ...\n')
    with pytest.raises(ComponentError, match=r"two\.py.*one\.py"):
        parse_study_file(study({"": 'use = ["one.py", "two.py"]'}), path=tmp_path / FILE)


def test_gp_is_allowed_if_every_condition_always_holds(tmp_path: Path) -> None:
    text = 'name = "x"\nbudget.trials = 3\nsampler.kind = "gp"\n[space]\nmodel = { choices = ["cnn"] }\n[space.cnn]\ndense = { int = [16, 64] }\n'
    assert parse_study_file(text, path=tmp_path / FILE).space.conditional == ()


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("10m", 600), ("90s", 90), ("1h30m", 5400), ("1h 30m", 5400), ("0.5h", 1800), (" 5s ", 5), ("1h1m1s", 3661)],
)
def test_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "5", "h", "-1h", "1d", "1m1h", "1e3s", "٣s", "0s", "9999999h", "1" * 50 + "s", 5, None, True])
def test_other_text_is_not_a_duration(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


# Generated files


def answer_to(path: Path, text: str | None = None) -> str | None:
    """Return the error of a study file; None if it is accepted."""
    try:
        parse_study_file(text, path=path) if text is not None else load_study_file(path)
    except UsageError as error:
        return error.message
    return None


def test_mutated_study_is_accepted_or_refused_with_a_reason() -> None:
    sources = [VALID, *(path.read_text(encoding="utf-8") for path in WITHOUT_COMPONENTS)]
    generator = random.Random(20)
    answers = []
    for _ in range(MUTANTS):
        text = mutated(generator.choice(sources), generator)
        started = time.perf_counter()
        answers.append(answer_to(Path(FILE), text))
        assert time.perf_counter() - started < LONGEST_PARSE, text
    refusals = [answer for answer in answers if answer is not None]
    assert [answer for answer in refusals if FILE not in answer] == []
    # Both outcomes are there, or the mutations would show nothing.
    assert 0.3 * MUTANTS < len(refusals) < 0.99 * MUTANTS


def test_loaded_bytes_are_accepted_or_refused_with_a_reason(tmp_path: Path) -> None:
    generator = random.Random(21)
    path = tmp_path / FILE
    for _ in range(200):
        content = bytearray(VALID.encode())
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        assert FILE in (answer_to(path) or FILE)
