"""Which groups of patients are told beside the whole, so that what is left over is never of few patients; no torch."""

from collections.abc import Collection, Mapping, Sequence

__all__ = ["is_small", "one_group_each", "tellable"]


def is_small(patients: Collection[str], least: int) -> bool:
    """Return whether there are patients here, but fewer than `least`: what is of nobody tells of nobody."""
    return 0 < len(patients) < least


def one_group_each(groups: Sequence[str], patients: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the group of each view, (N,), so that all views of a patient are in one: that of the view of the first name.

    Who was in two groups could be computed: two groups less the whole are those who are in both. The first name is that
    of a keyed digest, as in a survey, and says nothing about the view.
    """
    first: dict[str, tuple[str, str]] = {}
    for patient, name, group in zip(patients, names, groups, strict=True):
        first[patient] = min(first.get(patient, (name, group)), (name, group))
    return [first[patient][1] for patient in patients]


def tellable(groups: Mapping[str, Sequence[Collection[str]]], may: Collection[str], least: int) -> set[str]:
    """Return the groups that may be told beside figures over all patients.

    `groups` maps every group, that of nowhere too, to its patients on each side (with a finding, without); nobody is in
    two. `may` are those with figures that are large enough. Whole less told is what is hidden: that too must have none or
    `least` on each side, else the smallest told group is hidden as well.
    """
    told = set(may)
    for name in sorted(may, key=lambda each: (min(len(side) for side in groups[each] if side), each)):
        hidden = [sides for each, sides in groups.items() if each not in told]
        if not any(is_small(set[str]().union(*side), least) for side in zip(*hidden, strict=True)):
            break
        told.discard(name)
    return told
