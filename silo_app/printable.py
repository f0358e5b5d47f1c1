"""What may stand on a terminal: a stranger's text must not move the cursor, hide a line, or turn its order.

Names and sentences of any script pass. What does not pass is invisible and acts on what is around it: control characters
(escape codes begin with one), format characters such as those of Unicode's bidirectional algorithm (UAX 9), line separators,
and what no character is. The two joiners, format characters that Persian and many Indic words are spelled with, pass.
"""

from unicodedata import category

__all__ = ["is_printable", "printable"]

_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
_INSTEAD = "\ufffd"


def is_printable(text: str) -> bool:
    """Return whether a text is nothing but what can be seen."""
    return (text.isascii() and text.isprintable()) or all(map(_is_seen, text))


def printable(text: str) -> str:
    """Return a text with U+FFFD for each character that must not be printed."""
    return text if is_printable(text) else "".join(one if _is_seen(one) else _INSTEAD for one in text)


def _is_seen(character: str) -> bool:
    return character in _JOINERS or category(character) not in _ACTING
