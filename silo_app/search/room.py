"""What a message has no room for: the largest parts first, so that one flood costs its own part and no other."""

from collections.abc import Sequence

__all__ = ["left_out"]


def left_out(sizes: Sequence[int], room: int) -> set[int]:
    """Return the places of the parts that are left out, so that the others have at most `room` bytes together."""
    out: set[int] = set()
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        room -= sizes[place]
        if room < 0:
            out.add(place)
    return out
