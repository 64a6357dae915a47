"""These tests run on each kind of storage; some also with an Optuna that hpsearch does not know."""

from __future__ import annotations

import pytest

from hpsearch.storage import database


@pytest.fixture
def storage(any_storage: str) -> str:
    return any_storage


@pytest.fixture
def unknown_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private parts of Optuna are not as expected."""
    monkeypatch.setattr(database, "optuna_is_known", lambda: False)


@pytest.fixture(params=["known", "unknown"])
def any_optuna(request: pytest.FixtureRequest) -> None:
    """An Optuna as hpsearch expects it, and one whose private parts differ."""
    if request.param == "unknown":
        request.getfixturevalue("unknown_optuna")
