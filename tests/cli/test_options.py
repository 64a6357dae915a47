"""Values of assignments on the command line."""

from __future__ import annotations

import pytest

from hpsearch.cli.options import parse_assignments
from hpsearch.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("", "cnn", "a=b", "[1]", "{a=1}", "1979-05-27", "07:32:00", "[" * 3000, "1\nlr = 2", "\udcff")),
        *(("1", 1), ("0.5", 0.5), ("true", True), ("'cnn'", "cnn")),
    ],
)
def test_a_value_is_a_number_a_truth_value_or_a_text(text: str, value: object) -> None:
    found = parse_assignments([f"sgd.lr={text}"])
    assert found == {"sgd.lr": value}
    assert type(found["sgd.lr"]) is type(value)


@pytest.mark.parametrize("word", ["lr", "=1", ""])
def test_a_word_that_is_no_assignment_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="expected NAME=VALUE"):
        parse_assignments([word])
