"""What the network reads beside grey levels says nothing of exposure, and nothing of who else is in the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.cases import EncoderVersion
from silo_app.encoder.channels import read
from silo_app.encoder.checkpoint import version_of
from silo_app.encoder.embed import LoadedEncoder
from silo_app.encoder.model import build, layout_of
from silo_app.encoder.places import similarity_map
from silo_app.encoder.preprocessing import CONTRASTS
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.transforms import standardised

sizes = st.sampled_from([32, 64])
LOCAL, RANKED = 1, 2


def pixels(seed, size, count=1):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 1, size, size), dtype=np.uint8))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), sizes)
def test_three_channels_of_which_the_first_is_the_image(seed, size):
    images = standardised(pixels(seed, size, 3))
    channels = read(images)
    assert channels.shape == (3, 3, size, size)
    assert channels.dtype == torch.float32
    assert torch.equal(channels[:, :1], images)
    assert torch.isfinite(channels).all()
    for one, alone in zip(channels, (read(image[None])[0] for image in images), strict=True):
        torch.testing.assert_close(one, alone)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), sizes, st.floats(0.3, 3))
def test_gamma_changes_no_rank(seed, size, gamma):
    dark = standardised(pixels(seed, size))
    bright = standardised((pixels(seed, size) / 255.0) ** gamma * 255)
    torch.testing.assert_close(read(bright)[:, RANKED], read(dark)[:, RANKED], atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), sizes)
def test_ranks_are_those_of_numpy_with_ties_shared(seed, size):
    images = standardised(pixels(seed, size) // 32)  # many pixels of each level
    flat = images.flatten().numpy()
    values, back, counts = np.unique(flat, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2)[back] / len(flat)
    assert len(values) <= 8
    np.testing.assert_allclose(read(images)[0, RANKED].flatten(), (middle - 0.5) * np.sqrt(12), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), sizes)
def test_local_contrast_is_that_of_numpy(seed, size):
    images = standardised(pixels(seed, size))
    half = (size // 7 | 1) // 2
    grey = images[0, 0].double().numpy()

    def around(values, y, x):
        return values[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].mean()

    apart = np.array([[grey[y, x] - around(grey, y, x) for x in range(size)] for y in range(size)])
    for y, x in ((0, 0), (size - 1, 3), (size // 2, size // 2)):
        expected = apart[y, x] / (np.sqrt(around(apart**2, y, x)) + 0.15)
        assert float(read(images)[0, LOCAL, y, x]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_has_no_contrast(level):
    channels = read(standardised(torch.full((1, 1, 32, 32), level, dtype=torch.uint8)))
    assert channels.abs().max() < 1e-3


def test_a_shade_across_the_image_hardly_changes_its_local_contrast():
    image = pixels(3, 64).float() / 2
    shaded = image + torch.linspace(0, 100, 64)
    plain, under = (read(standardised(one)) for one in (image, shaded))
    assert (plain[:, LOCAL] - under[:, LOCAL]).abs().mean() < 0.3 * (plain[:, 0] - under[:, 0]).abs().mean()


@pytest.mark.parametrize("backbone", ["densenet-small", "mednext-small"])
def test_a_network_that_reads_contrasts_has_a_wider_first_layer_alone(backbone):
    grey, contrasts = (
        layout_of(build(EncoderSpec(backbone=backbone, channels=channels), 1)) for channels in ("grey", "contrasts")
    )
    assert [name for name, _ in grey] == [name for name, _ in contrasts]
    changed = [(one, other) for (_, one), (_, other) in zip(grey, contrasts, strict=True) if one != other]
    assert [(one[1], other[1]) for one, other in changed] == [(1, 3)]


def test_an_encoder_that_reads_grey_levels_alone_has_the_digest_of_older_releases():
    assert "channels" not in EncoderSpec().model_dump(mode="json")
    reads = EncoderSpec(channels="contrasts")
    assert EncoderSpec.model_validate_json(reads.model_dump_json()) == reads


def test_how_contrasts_are_made_is_part_of_the_version(monkeypatch):
    grey, contrasts = EncoderSpec(), EncoderSpec(channels="contrasts")
    weights = np.zeros(3, np.float32)
    before = [version_of(spec, weights) for spec in (grey, contrasts)]
    assert before[0] != before[1]
    monkeypatch.setattr("silo_app.encoder.checkpoint.CONTRASTS", CONTRASTS + "x")
    after = [version_of(spec, weights) for spec in (grey, contrasts)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_the_map_of_why_is_exact_with_contrasts():
    spec = EncoderSpec(backbone="densenet-small", embedding_dim=24, channels="contrasts")
    encoder = LoadedEncoder(spec, build(spec, 3).eval(), EncoderVersion("ab" * 16))
    one, other = (np.random.default_rng(seed).random((70, 50), np.float32) for seed in (1, 2))
    vectors = encoder.radiographs([one, other])
    assert float(similarity_map(encoder, one, vectors[1]).mean()) == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
