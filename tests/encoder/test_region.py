import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.region import SMALLEST, Region, cell_weights, over_radiograph
from silo_app.errors import ConfigInvalid

sides = st.integers(16, 96)
starts = st.floats(0, 1 - 2 * SMALLEST)
lengths = st.floats(SMALLEST * 1.01, 1)


@st.composite
def regions(draw):
    left, top = draw(starts), draw(starts)
    return Region(left, top, min(1.0, left + draw(lengths)), min(1.0, top + draw(lengths)))


@settings(max_examples=30, deadline=None)
@given(regions(), sides, sides, st.integers(1, 9), st.integers(1, 9))
def test_weights_are_the_shares_of_area(region, height, width, rows, columns):
    """Compared with points: what share of many points of the region falls into each cell of the padded square."""
    side, steps = max(height, width), 200
    across = (np.arange(steps) + 0.5) / steps
    y = ((side - height) // 2 + (region.top + across * (region.bottom - region.top)) * height) / side
    x = ((side - width) // 2 + (region.left + across * (region.right - region.left)) * width) / side
    counted = np.histogram2d(np.repeat(y, steps), np.tile(x, steps), (rows, columns), ((0, 1), (0, 1)))[0] / steps**2
    weights = cell_weights(region, (height, width), (rows, columns))
    assert weights.sum() == pytest.approx(1)
    assert np.abs(weights - counted).max() < 3 / steps


def test_of_a_square_image_the_whole_is_every_cell_alike():
    assert np.allclose(cell_weights(Region(0, 0, 1, 1), (50, 50), (3, 4)), 1 / 12)


def test_padding_counts_for_nothing():
    weights = cell_weights(Region(0, 0, 1, 1), (50, 100), (4, 4))  # a quarter of the square is above, a quarter below
    assert weights.sum(axis=1) == pytest.approx([0, 0.5, 0.5, 0])


@pytest.mark.parametrize(
    "text", ["", "0,0,1", "0,0,1,1,1", "a,0,1,1", "0,0,1.1,1", "-0.1,0,1,1", "nan,0,1,1", "0.5,0,0.4,1", "0,0,0.04,1"]
)
def test_what_is_no_part_of_an_image_is_refused(text):
    with pytest.raises(ConfigInvalid, match=r"no part of an image|not name a part") as raised:
        Region.parse(text)
    assert "LEFT,TOP,RIGHT,BOTTOM" in raised.value.remedy


@settings(max_examples=30, deadline=None)
@given(regions())
def test_a_region_reads_back_as_it_is_written(region):
    again = Region.parse(f"{region.left!r},{region.top!r},{region.right!r},{region.bottom!r}")
    assert again == region
    assert [float(part) for part in str(region).split(",")] == pytest.approx(_four(region), rel=1e-4)


def _four(region):
    return [region.left, region.top, region.right, region.bottom]


@settings(max_examples=30, deadline=None)
@given(sides, sides)
def test_a_map_over_the_square_is_cut_to_the_radiograph(height, width):
    grid = np.array([[0, 0], [1, 1]], np.float32)
    large = over_radiograph(grid, (height, width))
    assert large.shape == (height, width)
    assert (np.diff(large, axis=0) >= 0).all()
    assert np.allclose(over_radiograph(np.full((3, 3), 0.7, np.float32), (height, width)), 0.7)
