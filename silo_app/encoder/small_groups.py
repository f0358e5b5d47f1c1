"""Which groups of patients are told beside the whole, so that what is left over is never of few patients; no torch."""

from collections.abc import Collection, Mapping, Sequence

__all__ = ["tellable"]


def tellable(groups: Mapping[str, Sequence[Collection[str]]], untold: Sequence[Collection[str]], least: int) -> set[str]:
    """Return the groups that may be told beside figures over all patients.

    `groups` maps a group to its patients on each side (with a finding, without); `untold` are those of no group. Every
    side of a told group has at least `least` patients. Whole less told is what is hidden: that too must have none or
    `least` on each side, else the smallest told group is hidden as well.
    """
    told = {name for name, sides in groups.items() if all(len(set(side)) >= least for side in sides)}
    for name in sorted(told, key=lambda each: (min(len(set(side)) for side in groups[each]), each)):
        hidden = [groups[each] for each in groups if each not in told]
        together = [set().union(*(one[place] for one in hidden), rest) for place, rest in enumerate(untold)]
        if all(not side or len(side) >= least for side in together):
            break
        told.discard(name)
    return told
