"""Numbers as people read them."""

import pytest

from provisioning.report import words


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "not known"),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (14_130_000, "14.1 MB"),
    ],
)
def test_size(count, text):
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "not known"),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_duration(seconds, text):
    assert words.duration(seconds) == text


def test_nothing_of_nothing_is_no_share():
    assert words.share(0, 0) == "0 %"
    assert words.share(1, 3) == "33 %"


def test_what_is_not_known_is_said():
    assert words.amount(None) == words.fraction(None) == "not known"
    assert words.amount(12345) == "12,345"
    assert words.fraction(0.12345) == "0.123"
