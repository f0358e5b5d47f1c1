"""Python's cyclic garbage collector in a process that answers for months: what it holds is not looked through every time."""

import gc

__all__ = ["settle"]

_YOUNG = 20_000
"""So many objects are made before they are looked through: a query makes a thousand, and hardly any outlives it."""


def settle() -> None:
    """Have what is loaded by now looked through no more, and what comes less often; called once, when a process is ready.

    Modules, open indexes and logs outlive every query. Otherwise to look through them takes a quarter of the time of a
    process that asks much.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
