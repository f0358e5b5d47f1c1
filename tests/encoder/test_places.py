"""The map of why is exact: its mean is the cosine, bias and norm included; and a region's embedding is its part of it."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo_app.cases import EncoderVersion
from silo_app.encoder.embed import LoadedEncoder
from silo_app.encoder.model import build
from silo_app.encoder.places import region_embedding, similarity_map
from silo_app.encoder.region import Region
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import EncoderMismatch


@pytest.fixture(scope="module")
def encoder():
    spec = EncoderSpec(backbone="densenet-small", input_size=64, embedding_dim=24)
    model = build(spec, 3).eval()
    with torch.no_grad():
        model.embedding.bias += 0.3  # what training may do to it: the map must not forget it
    return LoadedEncoder(spec, model, EncoderVersion("ab" * 16))


def image(seed, height=64, width=64):
    rng = np.random.default_rng(seed)
    picture = rng.random((height, width), np.float32)
    picture[: height // 2, : width // 2] *= 0.2
    return picture


def unit(seed, size=24):
    vector = np.random.default_rng(seed).standard_normal(size)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(20, 120), st.integers(20, 120))
def test_the_mean_of_the_map_is_the_cosine(encoder, seed, height, width):
    one, other = image(seed, height, width), image(seed + 1, width, height)
    vectors = encoder.radiographs([one, other])
    cosine = float(vectors[0] @ vectors[1])
    for radiograph, vector in ((one, vectors[1]), (other, vectors[0])):
        shares = similarity_map(encoder, radiograph, vector)
        assert shares.dtype == np.float32
        assert shares.shape == (4, 4)
        assert float(shares.mean()) == pytest.approx(cosine, abs=1e-5)
    any_vector = unit(seed)
    assert float(similarity_map(encoder, one, any_vector).mean()) == pytest.approx(float(vectors[0] @ any_vector), abs=1e-5)


def test_the_map_is_exact_for_the_default_network_too():
    spec = EncoderSpec()
    encoder = LoadedEncoder(spec, build(spec, 1).eval(), EncoderVersion("cd" * 16))
    vectors = encoder.radiographs([image(1), image(2)])
    shares = similarity_map(encoder, image(1), vectors[1])
    assert shares.shape == (2, 2)
    assert float(shares.mean()) == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


def test_the_map_shows_where_two_images_differ(encoder):
    """The same image, one quarter of it blank: that quarter's share in the similarity falls most."""
    whole, part = image(5), image(5)
    part[32:, 32:] = part.mean()
    vector = encoder.radiographs([whole])[0]
    lost = similarity_map(encoder, whole, vector) - similarity_map(encoder, part, vector)
    quarters = np.abs(lost).reshape(2, 2, 2, 2).mean(axis=(1, 3))
    assert quarters[1, 1] == quarters.max()


def test_a_vector_of_another_encoder_is_refused(encoder):
    with pytest.raises(EncoderMismatch, match=r"shape \(8,\)"):
        similarity_map(encoder, image(1), unit(1, 8))


def test_the_region_of_all_is_the_image_itself(encoder):
    whole = region_embedding(encoder, image(1), Region(0, 0, 1, 1))
    assert whole.dtype == np.float32
    assert np.allclose(whole, encoder.radiographs([image(1)])[0], atol=1e-5)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([(0, 0, 0.5, 1), (0.25, 0.5, 0.75, 1), (0.5, 0, 1, 0.25)]), st.integers(0, 10**6))
def test_a_regions_similarity_is_its_part_of_the_map(encoder, corners, seed):
    """Where a region covers whole cells, its similarity is proportional to these cells' mean, for any vector."""
    radiograph, region = image(seed), Region(*corners)
    cells = tuple(
        slice(round(4 * start), round(4 * stop)) for start, stop in ((corners[1], corners[3]), (corners[0], corners[2]))
    )
    embedding = region_embedding(encoder, radiograph, region)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
    ratios = [
        float(similarity_map(encoder, radiograph, vector)[cells].mean()) / float(embedding @ vector)
        for vector in (embedding, unit(seed), unit(seed + 1))
    ]
    assert ratios[0] > 0
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-3)


def test_different_regions_ask_differently(encoder):
    corners = [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)]
    first, second = (region_embedding(encoder, image(1), Region(*one)) for one in corners)
    assert float(first @ second) < 0.9999
