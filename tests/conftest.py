"""What all tests share: how long hypothesis searches, and that no test leaves a component behind."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from hpsearch import extensions

settings.register_profile("default", max_examples=60, derandomize=True, deadline=None)
settings.register_profile("ci", max_examples=500, derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def no_components_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(extensions, "_registered", dict(extensions._registered))
