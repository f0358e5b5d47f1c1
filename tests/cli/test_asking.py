"""Who asks, where nobody says."""

import os

import pytest

from silo_app.cli.asking import account, who_asks_why


@pytest.fixture
def nameless(monkeypatch):
    """An account that nobody has given a name, as in a container that is run under any number."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_an_account_without_a_name_asks_under_its_number(nameless):
    assert account() == f"uid {os.getuid()}"
    assert who_asks_why("", "care") == (f"uid {os.getuid()}", "care")
    assert who_asks_why("dr.x", "care") == ("dr.x", "care")
