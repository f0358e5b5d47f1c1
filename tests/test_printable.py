"""Text of strangers on terminals: names of any script, and nothing that acts on what is around it."""

import pytest

from silo_app.printable import is_printable, printable

NAMES = [
    "",
    "dr.x@north",
    "Zoë Müller-Østergård",
    "山田　太郎",
    "علی‌رضا",
    "ക്ഷേമ ന്‍",
    "Ольга",
    "e\u0301",
    "don't \\x1b [red] %s",
]
ACTING = {
    "an escape code": "\x1b[2K\r",
    "a bell": "\x07",
    "a line": "a\nb",
    "an escape code in one character": "\x9b2J",
    "an order turned around": "\u202etxt.exe",
    "an isolate": "\u2066a\u2069",
    "a mark of direction": "\u200f",
    "nothing to be seen": "\u200b",
    "a line separator": "\u2028",
    "half a character": "\ud800",
    "a tag": "\U000e0041",
    "a deleted one": "\x7f",
    "soft": "\u00ad",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_script_pass_as_they_are(name):
    assert is_printable(name)
    assert printable(name) == name


@pytest.mark.parametrize("kind", ACTING)
def test_what_acts_on_a_terminal_is_refused_or_replaced(kind):
    text = f"a{ACTING[kind]}b"
    assert not is_printable(text)
    assert is_printable(printable(text))
    assert len(printable(text)) == len(text)
    assert printable(text)[0] + printable(text)[-1] == "ab"
