"""Local words -> findings of the shared vocabulary, and a count of the words that are none."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from silo_app.cases import Finding
from silo_app.catalogue.records import Label, Origin
from silo_app.config import TagLabels

__all__ = ["Terms", "Vocabulary", "as_reported", "folded"]

MAX_UNMAPPED = 1000
"""Different unmapped words that are remembered; a free-text column has no end of them."""

FREE_TEXT = "(free text)"
_LONGEST_TERM = 48
_MOST_WORDS = 6


def folded(word: str) -> str:
    """Return a word as it is compared: case, underscores and repeated blanks do not count."""
    return " ".join(word.replace("_", " ").casefold().split())


@dataclass(slots=True)
class Terms:
    """Maps local words to findings; a word that maps to None is known and has no name in the shared vocabulary."""

    mapping: Mapping[str, Finding | None]
    unmapped: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)
    """Words that are known and have no shared name."""
    _known: dict[str, Finding | None] = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the look-up; a mapping goes before the vocabulary's own names."""
        self._known = {folded(finding.value): finding for finding in Finding}
        self._known |= {folded(word): finding for word, finding in self.mapping.items()}

    def finding(self, word: str) -> Finding | None:
        """Return what a word means; one that means nothing to us is counted."""
        name = folded(word)
        if name not in self._known:
            _count(self.unmapped, word)
            return None
        if self._known[name] is None:
            _count(self.outside, word)
        return self._known[name]

    def knows(self, word: str) -> bool:
        """Return whether a word means something to us, be it nothing that has a shared name."""
        return folded(word) in self._known


@dataclass(slots=True)
class Vocabulary:
    """What the words of a DICOM attribute of the images themselves say."""

    settings: TagLabels
    since: str = ""
    _terms: Terms = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the look-up."""
        self._terms = Terms(self.settings.mapping)

    @property
    def unmapped(self) -> Counter[str]:
        """Words that are not mapped."""
        return self._terms.unmapped

    def labels(self, text: str) -> tuple[Label, ...]:
        """Return what an attribute's text says; one of which no word is known says nothing at all.

        A word that is mapped is present; what is in the scope and not named is absent.
        """
        words = [word.strip() for word in text.split(self.settings.separator) if word.strip()]
        named = {finding: word for word in words if (finding := self._terms.finding(word)) is not None}
        if len(named) > 1:
            named.pop(Finding.NO_FINDING, None)
        if not any(self._terms.knows(word) for word in words):
            return ()
        known = dict.fromkeys(self.settings.scope, "") | named
        source = self.settings.keyword
        origin = Origin(source=source, preset="tag", since=self.since)
        return tuple(
            Label(finding=finding, present=finding in named, source=source, term=known[finding], origin=origin)
            for finding in sorted(known)
        )


def as_reported(unmapped: Mapping[str, int]) -> dict[str, int]:
    """Return words that may be shown, the most frequent first; what looks like free text is counted, not quoted.

    A report's sentence, or a name that somebody typed into a comment, is longer than a term or holds digits.
    """
    shown: Counter[str] = Counter()
    for word, count in unmapped.items():
        shown[word if _is_term(word) else FREE_TEXT] += count
    return dict(sorted(shown.items(), key=lambda item: (-item[1], item[0])))


def _is_term(word: str) -> bool:
    plain = not any(character.isdigit() or character in "^@" for character in word)
    return plain and len(word) <= _LONGEST_TERM and len(word.split()) <= _MOST_WORDS


def _count(counter: Counter[str], word: str) -> None:
    if word in counter or len(counter) < MAX_UNMAPPED:
        counter[word] += 1
