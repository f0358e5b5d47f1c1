"""Who asks, where nobody says."""

import os

import pytest

from silo_app.cli.asking import account, tell_encoder, who_asks_why
from silo_app.encoder.current import set_current


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


def test_an_answer_is_given_though_no_encoder_is_current(make_silo, capsys):
    home, asked_with = make_silo(), "ab" * 16
    tell_encoder(home, asked_with)
    assert capsys.readouterr().err == ""
    home.models.mkdir(parents=True)
    set_current(home.models, "cd" * 16)
    tell_encoder(home, asked_with)
    assert "until the index is built with cdcdcdcdcdcd" in capsys.readouterr().err
