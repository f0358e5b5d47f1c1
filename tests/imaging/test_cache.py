"""The cache gives back what was put in, is the query's twin, and throws away what is damaged."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from silo_app.errors import NotReady
from silo_app.imaging.cache import RadiographCache, as_cached
from silo_app.imaging.radiograph import Radiograph, read_radiograph

DIGEST = hashlib.sha256(b"file").hexdigest()


@pytest.fixture
def cache(tmp_path):
    return RadiographCache(tmp_path / "cache")


@pytest.fixture
def radiograph(make_dicom, make_picture):
    return read_radiograph(make_dicom(make_picture(600, 500)))


def test_cached_image_and_query_are_one_and_the_same(cache, radiograph):
    cache.write(DIGEST, radiograph)
    cached = cache.read(DIGEST)
    assert cached.dtype == np.float32
    np.testing.assert_array_equal(cached, as_cached(radiograph))
    np.testing.assert_allclose(cached, radiograph.pixels, atol=0.5 / 255 + 1e-6)


@given(arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
def test_quantizing_twice_equals_once(pixels):
    once = as_cached(Radiograph(pixels))
    np.testing.assert_array_equal(as_cached(Radiograph(once)), once)


def test_files_are_private_and_lie_below_two_digits(cache, radiograph):
    cache.write(DIGEST, radiograph)
    path = cache.path(DIGEST)
    assert path.parent.name == DIGEST[:2]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(cache.digests()) == [DIGEST]
    assert DIGEST in cache


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:200],
        lambda content: bytes(len(content)),
        lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        lambda content: content + b"more",
        lambda content: b"\x80\x04pickle" + content,
        lambda content: content.replace(b"{'descr'", b"{(descr'"),
        lambda content: content.replace(b"'descr'", b"0b'scr'"),
        lambda content: b"PK\x03\x04" + content,
    ],
    ids=["empty", "short", "torn", "zeros", "flipped bit", "longer", "foreign", "no Python", "no name", "zip"],
)
def test_damaged_radiograph_is_refused_and_removed(cache, radiograph, damage):
    cache.write(DIGEST, radiograph)
    path = cache.path(DIGEST)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NotReady, match="silo ingest"):
        cache.read(DIGEST)
    assert DIGEST not in cache


def test_missing_radiograph_says_what_to_do(cache):
    with pytest.raises(NotReady, match="silo ingest"):
        cache.read(DIGEST)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", DIGEST.upper(), DIGEST + "0", DIGEST[:-1] + "/"])
def test_only_a_digest_names_a_radiograph(cache, name):
    with pytest.raises(ValueError, match="digest"):
        cache.path(name)


def test_sweep_removes_what_a_killed_writer_left(cache, radiograph):
    cache.write(DIGEST, radiograph)
    left = cache.path(DIGEST).parent / ".abc.part"
    left.write_bytes(b"half")
    cache.sweep()
    assert not left.exists()
    assert DIGEST in cache
