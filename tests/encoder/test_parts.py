import pytest
import torch

from silo_app.encoder.parts import in_parts
from silo_app.errors import NotReady


def needs(views):
    """Work for which memory suffices with so many views at once, and what it was asked with."""
    asked = []

    def work(at_once):
        asked.append(at_once)
        if (at_once or 32) > views:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"with {at_once}"

    return work, asked


@pytest.mark.parametrize(
    ("views", "at_once", "asked"),
    [
        (32, None, [None]),
        (16, None, [None, 16]),
        (5, None, [None, 16, 8, 4]),
        (5, 7, [7, 3]),
        (1, 3, [3, 1]),
        (3, 64, [64, 16, 8, 4, 2]),
    ],
)
def test_parts_are_halved_until_memory_holds_them(views, at_once, asked):
    work, seen = needs(views)
    assert in_parts(work, at_once, batch=32) == (f"with {asked[-1]}", asked[-1])
    assert seen == asked


def test_memory_that_holds_no_view_is_said():
    work, seen = needs(0)
    with pytest.raises(NotReady, match="does not hold one view"):
        in_parts(work, None, batch=4)
    assert seen == [None, 2, 1]


def test_other_errors_pass():
    def work(at_once):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        in_parts(work, None, batch=4)
