"""Rules of storage URLs: which are refused, and that no message shows a part of a password."""

from __future__ import annotations

import pytest

from hpsearch.errors import StorageError
from hpsearch.storage.database import database_at
from hpsearch.storage.workspace import Workspace

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://me:pa@{PASSWORD}@host/db", "%40 for @"),
        (f"postgresql://me:pa@{PASSWORD}/x@host/db", "%40 for @"),
        (f"postgresql://me/x:{PASSWORD}@host/db", "%2F for /"),
        (f"postgresql:///me:{PASSWORD}@host/db", "HOST:PORT/DATABASE"),
        (f"postgresql://me:{PASSWORD}", "HOST:PORT/DATABASE"),
        (f"postgresql://me:{PASSWORD}/db", "HOST:PORT/DATABASE"),
        (f"postgresql://me:x@host:{PASSWORD}/db", "HOST:PORT/DATABASE"),
        (f"postgresql://{PASSWORD}@127.0.0.1:1/db", "Is the server running"),
        (f"postgresql://me%3A{PASSWORD}@127.0.0.1:1/db", "Is the server running"),
        (f"postgresql://me@host/db?password=a@{PASSWORD}", "%40 for @"),
        (f"postgresql://host:1/db?password=a@{PASSWORD}", "%40 for @"),
        (f"postgresql://me@host/db&password={PASSWORD}", "HOST:PORT/DATABASE"),
        (f"postgresql+psycopg:me:{PASSWORD}", "sqlite:///FILE"),
        (f"postgresql+psycopg:/me:{PASSWORD}", "sqlite:///FILE"),
        (f"host=localhost password={PASSWORD}", "sqlite:///FILE"),
        (f"mysql://me:pa@{PASSWORD}@host/db", "'mysql'"),
        (f"mysql://me:{PASSWORD}/db", "'mysql'"),
        (f"sqlite://me:{PASSWORD}@host/x.db", "must be a file"),
        (f"sqlite://me:{PASSWORD}/x.db", "must be a file"),
    ],
)
def test_a_message_about_a_storage_shows_no_part_of_its_password(url: str, says: str) -> None:
    with pytest.raises(StorageError) as raised:
        database_at(url).check(create=True)
    assert says in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://me:{PASSWORD}@host/db", "postgresql+psycopg://***@host/db"),
        (f"postgresql+psycopg://me:{PASSWORD}/x%40@[::1]:5432/db?sslmode=require", "postgresql+psycopg://***@[::1]:5432/db"),
        (f"postgresql:///db?host=/run&password={PASSWORD}", "postgresql+psycopg:///db"),
        ("postgresql://one,two/db?options=-csearch_path=mine", "postgresql+psycopg://one,two/db"),
        (f"sqlite:///study.db?password={PASSWORD}", "sqlite:///study.db"),
    ],
)
def test_a_storage_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert database_at(url).display_url == shown
    assert PASSWORD not in repr(Workspace(storage=url))
