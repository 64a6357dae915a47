"""Text of values, paths, counts, durations and CSV cells."""

from __future__ import annotations

import math
from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.formatting import escape_cell, escape_csv, hide_credentials, many, show, show_duration, show_loss, show_path, str_of, times


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("adam", "'adam'"),
        (0.1, "0.1"),
        (["a", True, 1], "['a', true, 1]"),
        ({"low": 0, "when": {"model": "cnn"}}, "{ low = 0, when = { model = 'cnn' } }"),
        ({}, "{}"),
        ([], "[]"),
        (date(2020, 2, 29), "2020-02-29"),
        (time(7, 30), "07:30:00"),
        (None, "None"),
        ("a\0b\n", r"'a\x00b\x0a'"),
        ([[[[1]]]], "[[[…]]]"),
    ],
)
def test_value_is_shown_as_a_study_file_writes_it(value: object, text: str) -> None:
    assert show(value) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_value_is_shown_in_one_short_printable_line(value: object) -> None:
    text = show(value)
    assert text.isprintable()
    assert len(text) <= 100


def test_number_that_python_does_not_print_is_shown_by_its_size() -> None:
    assert show(16**5000) == "a number of some 6,000 digits"


def test_long_text_is_shown_with_its_length() -> None:
    assert show("x" * 100_000).endswith("… (100000 characters)")


def test_deep_value_is_shown_without_end() -> None:
    deep: dict[str, object] = {}
    for _ in range(50_000):
        deep = {"a": deep}
    assert show(deep) == "{ a = { a = { a = … } } }"


def test_path_is_shown_to_its_end() -> None:
    path = Path("/a" * 100 + "/study.toml")
    assert show_path(path) == f"'{path}'"
    assert show_path(Path("x" * 100_000 + "/study.toml")).endswith("/study.toml'")
    assert show_path(Path("a\nb")) == r"'a\x0ab'"


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0s"), (9, "9s"), (125, "2m 5s"), (5400, "1h 30m"), (3605, "1h")])
def test_duration_is_shown_in_two_units(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("loss", "text"), [(0.25, "0.2500"), (25010.09, "25010.0900"), (2e36, "2e+36"), (math.inf, "inf"), (math.nan, "nan")]
)
def test_loss_of_any_size_is_short(loss: float, text: str) -> None:
    assert show_loss(loss) == text


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (0.1, "0.1"), (1 / 3, "0.333333"), (7, "7"), ("adam", "adam")])
def test_value_in_a_table_has_no_quotes(value: bool | int | float | str, text: str) -> None:
    assert str_of(value) == text


def test_count_has_its_noun_in_the_right_number() -> None:
    assert (many(1, "trial"), many(0, "trial"), many(1_200, "trial")) == ("1 trial", "0 trials", "1,200 trials")
    assert (many(1, "study", "studies"), many(2, "study", "studies")) == ("1 study", "2 studies")
    assert (times(1), times(2)) == ("once", "2 times")


@pytest.mark.parametrize(
    ("value", "cell"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("\tx", "'\tx"), ("cnn", "cnn"), ("", ""), (-3.5, -3.5), (None, None)]
)
def test_cell_is_never_a_formula(value: object, cell: object) -> None:
    assert escape_cell(value) == cell


def test_numbers_of_a_csv_file_stay_numbers() -> None:
    assert escape_csv("a,b\r\n-1.5,-cmd()\r\n") == "a,b\r\n-1.5,'-cmd()\r\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL, me@host", "no URL, me@host"),
        ("at ray://me:x@head:1.", "at ray://***@head:1."),
        ("'postgresql+psycopg://me:a@b/c@host/db' and http://x:y@z", "'postgresql+psycopg://***@host/db' and http://***@z"),
        ("postgresql:/me:x@host", "postgresql:/***@host"),
        ("postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_a_text_shows_no_user_and_password_of_a_url(text: str, shown: str) -> None:
    assert hide_credentials(text) == shown
    assert "long" not in show(f"postgresql://me:{'long' * 30}@host")
