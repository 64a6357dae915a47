"""All of search holds for each kind of storage."""

from __future__ import annotations

import pytest


@pytest.fixture
def storage(any_storage: str) -> str:
    return any_storage
