import os

import pytest

from silo_app.errors import ProcessFailed
from silo_app.imaging.samples.pool import spread


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_gives_its_result(workers):
    assert sorted(spread(abs, range(-5, 0), workers)) == [1, 2, 3, 4, 5]


def test_a_process_that_ends_is_an_error_with_a_remedy():
    with pytest.raises(ProcessFailed, match="was ended") as caught:
        list(spread(os._exit, [1, 1], 2))
    assert "--workers 1" in caught.value.remedy


def test_an_error_in_a_task_reaches_the_caller():
    with pytest.raises(ValueError, match="cat"):
        list(spread(int, ["1", "cat"], 2))
