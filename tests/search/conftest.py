"""Run all tests of search on each kind of database."""

from __future__ import annotations

import pytest


@pytest.fixture
def storage(any_storage: str) -> str:
    return any_storage
