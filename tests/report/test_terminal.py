"""Rules of blocks in a terminal: every table that a command prints fits, and none breaks a word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from hpsearch.analysis.ablation import AblationStep, Explanation
from hpsearch.analysis.finalists import Candidate, evaluate_finalists
from hpsearch.analysis.leaderboard import make_leaderboard
from hpsearch.analysis.metrics import Estimate
from hpsearch.cli import console
from hpsearch.cli.main import main
from hpsearch.cli.reproduce_command import _print_epochs
from hpsearch.cli.show_model import print_final, print_validation
from hpsearch.config.epoch import Epoch
from hpsearch.report.blocks import Block, Bullets, Code, Paragraph, Table, number_column, prose_column, text_column
from hpsearch.report.terminal import cut, render, wrap
from hpsearch.report.text import epochs_table, leaderboard_table, steps_table, verdict_blocks
from hpsearch.storage.records import read_trials
from hpsearch.workflows.reproduce import EpochComparison, ReproductionResult
from tests.cli.test_compare import _final
from tests.support.small_study import STUDY
from tests.support.stored_study import every_third_pruned, stored_study

WIDTHS = (80, 100, 140)
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
LONG_PARAMS = {f"cnn.a_parameter_with_a_name_{index}": 0.123456 * 10**index for index in range(8)}


def print_study(folder: Path) -> None:
    trials = read_trials(stored_study(folder, trials=60, epochs=12, state=every_third_pruned))
    console.print_blocks(leaderboard_table("small", make_leaderboard(trials, validation_images=10_000), 20))


def print_long_settings(folder: Path) -> None:
    trials = [
        replace(trial, params={**LONG_PARAMS, "cnn.width": trial.number}, n_parameters=123_456_789, origin="copy of trial 1,234")
        for trial in read_trials(stored_study(folder, trials=12))
    ]
    trials[0] = replace(trials[0], params={**trials[0].params, **dict.fromkeys(LONG_PARAMS, 1)})
    console.print_blocks(leaderboard_table("small", make_leaderboard(trials, validation_images=10_000), 20))


def print_trial(folder: Path) -> None:
    console.print_blocks(epochs_table(read_trials(stored_study(folder, trials=2, epochs=20))[0]))


def print_finalists(folder: Path) -> None:
    names = ("trial 0", "trial 1234", "trial 4")
    candidates = [
        Candidate(name=name, trial=index, value=0.9, model="a_model_of_mine", n_parameters=11_000_000, is_baseline=index == 0)
        for index, name in enumerate(names)
    ]
    scores = {
        "trial 0": {1: 0.8, 2: 0.81, 3: 0.8, 4: 0.8},
        "trial 1234": {1: 0.9, 2: 0.91, 3: 0.9, 4: 0.91},
        "trial 4": {1: 0.89, 2: 0.9, 3: 0.92, 4: 0.9},
    }
    console.print_blocks(*verdict_blocks("small", evaluate_finalists(candidates, scores, seeds=4, n_images=1000, pool=5000)))


def print_explanation(folder: Path) -> None:
    gain = Estimate(value=0.0123, interval=(-0.0456, 0.1234))
    steps = tuple(
        AblationStep(parameter=parameter, change=change, settings=settings, accuracy=Estimate(value=0.9, interval=(0.8, 0.95)), gain=gain)
        for parameter, change, settings in (
            ("", "", {}),
            ("optimizer", "sgd → a_long_optimizer_of_mine", {"a_long_optimizer_of_mine.lr": 0.1, "a_long_optimizer_of_mine.momentum": 0.9}),
            ("cnn.filters1", "16 → 32", {}),
        )
    )
    console.print_blocks(steps_table(Explanation(steps=steps, total=gain, seeds=4, is_over=True), 12))


def command(*arguments: str) -> Callable[[Path], None]:
    """A command, run in this process, in a folder with a study file and a study."""

    def run(folder: Path) -> None:
        (folder / "small.toml").write_text(STUDY)
        stored_study(folder, name="a-study-with-a-name", storage=f"sqlite:///{folder}/study.db")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("OPTUNA_STORAGE", f"sqlite:///{folder}/study.db")
            patch.setattr(sys, "argv", ["hpsearch", *arguments])
            with suppress(SystemExit):  # doctor ends with 1 where something is missing
                main()

    return run


def print_comparison(folder: Path) -> None:
    _final(folder / "one", "aabbbb", epochs=3, batch_size=64)
    _final(folder / "another-final-model-of-a-long-name", "abbbba", epochs=4)
    command("compare", "one", "another-final-model-of-a-long-name")(folder)


def print_reproduced(folder: Path) -> None:
    then = Epoch(
        number=1,
        train_loss=0.123456,
        train_accuracy=0.912345,
        val_loss=0.234567,
        val_accuracy=0.901234,
        learning_rate=0.00123456,
        seconds=1.0,
        images_per_second=1e3,
        weights_hash="a",
    )
    now = replace(then, train_loss=0.223456, train_accuracy=0.9, val_loss=0.3, val_accuracy=0.9, learning_rate=0.1, weights_hash="b")
    pairs = tuple(EpochComparison(then=replace(then, number=number), now=replace(now, number=number)) for number in (9, 10))
    _print_epochs(ReproductionResult(kind="different", pairs=pairs, differences=(), margin=0.01))


def _metrics() -> dict[str, Any]:
    each = {"precision": 0.912, "recall": 0.923, "f1": 0.917, "support": 12_345}
    return {
        "n_images": 123_450,
        "accuracy": 0.91,
        "interval": (0.9, 0.92),
        "calibration_error": 0.01234,
        "classes": [{"name": name, **each} for name in CLASSES],
        "confusion": [[12_345] * len(CLASSES) for _ in CLASSES],
    }


def print_final_model(folder: Path) -> None:
    seed = {"train": _metrics(), "test": _metrics()}
    intervals = {f"{part}_{key}_interval": (0.9, 0.92) for part in ("train", "test") for key in ("accuracy", "loss")}
    values = {f"{part}_{key}": 0.91 for part in ("train", "test") for key in ("accuracy", "loss")}
    more = {
        "interval_over": "images",
        "test_split_reads": 1,
        "seeds": [seed],
        "overfitting": "",
        "weakest": "",
        "train_less_test": [{"recall": 0.01}] * len(CLASSES),
    }
    print_final({**intervals, **values, **more}, folder)


def print_validated_model(folder: Path) -> None:
    print_validation(
        {"validation": _metrics(), "val_loss": 0.3, "overfitting": "", "weakest": "", "trial_val_accuracy": None, "against_trial": ""}
    )


TABLES: dict[str, Callable[[Path], None]] = {
    "study": print_study,
    "study with long settings": print_long_settings,
    "trial": print_trial,
    "finalists": print_finalists,
    "explanation": print_explanation,
    "ls": command("ls"),
    "check": command("check", "small.toml"),
    "summary": command("summary", "lenet5"),
    "doctor": command("doctor"),
    "data": command("data"),
    "compare": print_comparison,
    "reproduce": print_reproduced,
    "final model": print_final_model,
    "validated model": print_validated_model,
}


def lines(*blocks: Block, width: int | None = 40) -> list[str]:
    return [line.plain for line in render(blocks, width, unknown_width=60)]


def printed(name: str, folder: Path) -> tuple[Block, ...]:
    """The blocks that a command prints."""
    found: list[Block] = []

    def recording(blocks: tuple[Block, ...], width: int | None, **options: int) -> list[Text]:
        found.extend(blocks)
        return render(blocks, width, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "render", recording)
        TABLES[name](folder)
    return tuple(found)


def words_of(table: Table) -> set[str]:
    texts = [table.caption, *(column.heading for column in table.columns), *(cell for row in table.rows for cell in row)]
    words = {word for text in [*texts, *(word for words in table.details for word in words)] for word in text.split()}
    return words | {"Columns", "left", "out:", "…"} | {f"{word}{end}" for word in words for end in ",."}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_fits_and_breaks_no_word(name: str, tmp_path: Path) -> None:
    if name == "data" and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("the images are not on this machine")
    blocks = printed(name, tmp_path)
    tables = [block for block in blocks if isinstance(block, Table)]
    assert tables
    known = {word for table in tables for word in words_of(table)}
    sentences = {word for block in blocks if isinstance(block, Paragraph) for word in block.text.split()}
    for width in WIDTHS:
        shown = lines(*blocks, width=width)
        assert max(map(cell_len, shown)) <= width
        # A path that is longer than a line has to be broken; any other word stays whole.
        broken = {word for line in shown for word in line.split()} - known - sentences
        assert not [word for word in broken if not any(word in whole and len(whole) > width - 20 for whole in known)]


@pytest.mark.parametrize("name", ["study", "study with long settings"])
def test_a_trial_takes_three_lines_at_most(name: str, tmp_path: Path) -> None:
    (table,) = printed(name, tmp_path)
    assert isinstance(table, Table)
    for width in WIDTHS:
        shown = lines(table, width=width)
        rows = [index for index, line in enumerate(shown) if line[:4].strip().isdigit()]
        assert len(rows) == len(table.rows)
        ends = [*rows[1:], len(shown) - shown[-1].startswith("Columns left out")]
        assert all(end - begin <= 3 for begin, end in zip(rows, ends, strict=True))


def test_a_table_is_as_wide_as_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    print_study(tmp_path)
    assert "epochs" in capsys.readouterr().out.splitlines()[1], "160 columns where there is no terminal"
    monkeypatch.setenv("COLUMNS", "80")
    print_study(tmp_path)
    assert "Columns left out: train, epochs." in capsys.readouterr().out


def test_columns_are_dropped_by_priority_and_named() -> None:
    columns = (text_column("keep"), number_column("second", 1), number_column("first", 2))
    table = Table(columns=columns, rows=(("x" * 26, "1" * 8, "2" * 8),))
    assert lines(table) == [f"{'keep':<26}    second", f"{'x' * 26}  11111111", "Columns left out: first."]


def test_a_text_is_cut_between_words_only_when_nothing_is_left_to_drop() -> None:
    table = Table(columns=(text_column("name"), number_column("value")), rows=(("some words " * 5, "12345678"),))
    assert lines(table)[1] == "some words some words some …    12345678"


def test_settings_that_all_trials_share_are_said_once(tmp_path: Path) -> None:
    trials = read_trials(stored_study(tmp_path, trials=4, models=("cnn",)))
    table = leaderboard_table("small", make_leaderboard(trials, validation_images=100), 20)
    assert "The same in all rows: epochs=3." in table.caption
    assert not any("epochs=3" in words for words in table.details)


def test_numbers_stand_at_the_right_and_prose_is_wrapped() -> None:
    table = Table(columns=(number_column("n"), prose_column("text")), rows=(("1", "one two three"), ("22", "four\n→ five")))
    assert lines(table, width=12) == [" n  text", " 1  one two", "    three", "22  four", "    → five"]


def test_sentences_stay_on_one_line_where_there_is_no_terminal() -> None:
    text = "words " * 30
    assert lines(Paragraph(text=text), width=None) == [text]
    assert all(len(line) <= 40 for line in lines(Paragraph(text=text), Bullets(items=(text,))))
    assert lines(Code(text="a\n  b", label="")) == ["a", "  b"]


def test_only_a_word_longer_than_a_line_is_broken_and_after_a_slash_first() -> None:
    assert wrap(["a/path/of/many/parts", "end"], 10) == ["a/path/of/", "many/parts", "end"]
    assert wrap(["x" * 12], 10) == ["x" * 10, "xx"]
    assert cut("日本語 text", 8) == "日本語 …"
