"""What one row, or one report, says about findings; how several become one; and how that becomes labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from silo_app.cases import Finding
from silo_app.catalogue.records import Label, Origin
from silo_app.settings.labels import Said, Uncertain

__all__ = ["Statement", "agreed", "labels_of", "stronger", "united"]


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said about findings, with the local word that says it; what is not named is not said."""

    said: Mapping[Finding, tuple[Said, str]] = field(default_factory=dict)
    silent: bool = False
    """Whether nothing that we understand is said, so that nothing follows from what is not named either."""

    def of(self, what: Said) -> set[Finding]:
        """Return the findings of which `what` is said."""
        return {finding for finding, (said, _) in self.said.items() if said is what}

    @property
    def contradicts_itself(self) -> bool:
        """Whether "No Finding" stands beside a finding."""
        named = self.of(Said.PRESENT) | self.of(Said.UNCERTAIN)
        return Finding.NO_FINDING in self.of(Said.PRESENT) and len(named) > 1


def stronger(one: tuple[Said, str], other: tuple[Said, str]) -> tuple[Said, str]:
    """Return what two columns or boxes say together of one finding: present before uncertain before absent."""
    order = (Said.UNKNOWN, Said.ABSENT, Said.UNCERTAIN, Said.PRESENT)
    return max(one, other, key=lambda each: order.index(each[0]))


def united(statements: Iterable[Statement]) -> Statement:
    """Return what several rows of one labeller say together: boxes of one image, each with its finding."""
    said: dict[Finding, tuple[Said, str]] = {}
    silent = True
    for statement in statements:
        silent = silent and statement.silent
        for finding, one in statement.said.items():
            said[finding] = stronger(said.get(finding, one), one)
    return Statement(said, silent=silent)


def agreed(readers: Sequence[Statement], scope: Iterable[Finding]) -> Statement:
    """Return what readers say together: present where more than half say so, absent where nobody does, else unknown."""
    said: dict[Finding, tuple[Said, str]] = {}
    for finding in {finding for reader in readers for finding in reader.said} | set(scope):
        words = [reader.said[finding][1] for reader in readers if finding in reader.of(Said.PRESENT)]
        if 2 * len(words) > len(readers):
            said[finding] = (Said.PRESENT, words[0])
        elif not words and finding is not Finding.NO_FINDING:
            said[finding] = (Said.ABSENT, "")
        else:
            said[finding] = (Said.UNKNOWN, "")
    return Statement(said, silent=all(reader.silent for reader in readers))


def labels_of(
    statement: Statement,
    *,
    scope: Iterable[Finding],
    normal_scope: Iterable[Finding] = (),
    uncertain: Uncertain = Uncertain.IGNORE,
    source: str,
    origin: Origin,
) -> tuple[Label, ...]:
    """Return labels: what is said, and absent what is not named and in the scope.

    `normal_scope` is what "No Finding" says to be absent beyond the scope. What is uncertain follows the policy: one
    that is ignored stays unknown, whatever the scope.
    """
    if statement.silent:
        return ()
    known: dict[Finding, tuple[bool, str]] = dict.fromkeys(scope, (False, ""))
    if Finding.NO_FINDING in statement.of(Said.PRESENT) and not statement.contradicts_itself:
        known |= dict.fromkeys(normal_scope, (False, ""))
    for finding, (said, term) in statement.said.items():
        decided = _POLICY[uncertain] if said is Said.UNCERTAIN else said
        known.pop(finding, None)
        if decided is not Said.UNKNOWN:
            known[finding] = (decided is Said.PRESENT, term)
    if statement.contradicts_itself:
        known.pop(Finding.NO_FINDING, None)
    return tuple(
        Label(finding=finding, present=known[finding][0], source=source, term=known[finding][1], origin=origin)
        for finding in sorted(known)
    )


_POLICY = {Uncertain.IGNORE: Said.UNKNOWN, Uncertain.ONES: Said.PRESENT, Uncertain.ZEROS: Said.ABSENT}
