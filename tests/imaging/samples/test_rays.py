import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.imaging.samples.rays import HEIGHTS, Geometry, Loft, Span, covered


def geometry(**changes):
    usual = {
        "rows": 41,
        "columns": 37,
        "spacing": 8.0,
        "source_to_detector": 1800.0,
        "patient_to_detector": 130.0,
        "anterior": False,
        "yaw": 0.0,
        "roll": 0.0,
        "shift": (0.0, 0.0),
    }
    return Geometry(**{**usual, **changes})


def sampled(rays, inside, reach=400.0, step=0.5):
    """Return chords by brute force: points along every ray, counted where `inside` says so."""
    along = np.arange(-reach, reach, step)[:, None, None]
    x, y, z = (p[None] + along * u[None] for p, u in zip(rays.point, rays.course, strict=True))
    return inside(x, y, z).sum(axis=0) * step


def test_the_middle_ray_crosses_a_sphere_by_its_diameter():
    rays = geometry(shift=(3.0, 5.0)).rays()
    assert rays.ellipsoid((0, 0, 0), (50, 50, 50)).length.max() == pytest.approx(100, abs=1)


@pytest.mark.parametrize("changes", [{}, {"anterior": True}, {"yaw": 0.2, "roll": -0.1}, {"shift": (20.0, -30.0)}])
@pytest.mark.parametrize("lean", [0.0, 0.7])
def test_chords_of_an_ellipsoid_equal_brute_force(changes, lean):
    rays = geometry(**changes).rays()
    (cx, cy, cz), (rx, ry, rz) = (30.0, -20.0, 15.0), (70.0, 40.0, 25.0)

    def inside(x, y, z):
        x, y, z = x - cx, y - cy, z - cz
        x, y = x * np.cos(lean) + y * np.sin(lean), y * np.cos(lean) - x * np.sin(lean)
        return (x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2 < 1

    chords = rays.ellipsoid((cx, cy, cz), (rx, ry, rz), lean).length
    np.testing.assert_allclose(chords, sampled(rays, inside), atol=1.6)


def test_chords_of_an_upright_cylinder_equal_brute_force():
    rays = geometry(yaw=0.3, source_to_detector=1e6).rays()
    flat = np.ones(len(HEIGHTS), np.float32)
    cylinder = Loft(10 * flat, -5 * flat, 60 * flat, 30 * flat)
    expected = sampled(rays, lambda x, y, z: ((x - 10) / 60) ** 2 + ((z + 5) / 30) ** 2 < 1)
    np.testing.assert_allclose(rays.loft(cylinder).length, expected, atol=1.6)


@pytest.mark.parametrize("anterior", [False, True])
def test_a_point_on_a_ray_projects_onto_its_pixel(anterior):
    view = geometry(anterior=anterior, yaw=0.1, roll=0.05, shift=(12.0, -7.0))
    rays = view.rays()
    for along in (-80.0, 0.0, 60.0):
        points = np.stack([p + along * u for p, u in zip(rays.point, rays.course, strict=True)], axis=-1)
        rows, columns = np.mgrid[0:41, 0:37]
        np.testing.assert_allclose(view.project(points), np.stack([rows, columns], axis=-1), atol=0.02)


def test_what_is_nearer_to_the_source_is_larger():
    front = np.array([[-50.0, 0, 80], [50.0, 0, 80]])  # the breastbone's side
    widths = {}
    for anterior in (False, True):
        ends = geometry(anterior=anterior, source_to_detector=1000.0).project(front)
        widths[anterior] = np.ptp(ends[:, 1])
    assert widths[True] > 1.1 * widths[False]


def test_the_patients_left_is_on_the_right_of_the_picture():
    for anterior in (False, True):
        row, column = geometry(anterior=anterior).project(np.array([100.0, 50.0, 0.0]))
        assert column > 18
        assert row < 20


def test_a_window_sees_the_same():
    rays = geometry(roll=0.1).rays()
    place = (slice(5, 30), slice(10, 33))
    whole = rays.ellipsoid((20, 10, 0), (60, 30, 20), 0.4).length
    np.testing.assert_array_equal(rays.window(place).ellipsoid((20, 10, 0), (60, 30, 20), 0.4).length, whole[place])


ends = st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(ends, min_size=1, max_size=2), ends)
def test_the_cover_of_two_spans_is_the_measure_of_their_union(spans, inside):
    cells = np.zeros(400, bool)
    for near, far in spans:
        cells[near + 100 : far + 100] = True
    expected = cells[inside[0] + 100 : inside[1] + 100].sum()

    def span(pair):
        return Span(np.full((1, 1), pair[0], np.float32), np.full((1, 1), pair[1], np.float32))

    assert covered(span(inside), [span(pair) for pair in spans])[0, 0] == expected
