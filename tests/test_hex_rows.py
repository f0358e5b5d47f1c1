"""Hex names as rows of bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.hex_rows import hex_rows


@given(names=st.lists(st.binary(min_size=4, max_size=4), max_size=5))
def test_every_row_is_its_name(names):
    rows = hex_rows([name.hex() for name in names], 4)
    assert rows.shape == (len(names), 4)
    assert rows.dtype == np.uint8
    assert [row.tobytes() for row in rows] == names


@pytest.mark.parametrize("names", [["abcd"], ["zz" * 4]])
def test_other_lengths_and_no_hexadecimal_are_refused(names):
    with pytest.raises(ValueError, match=r"reshape|hexadecimal"):
        hex_rows(names, 4)
