import numpy as np
import pytest
import torch

from silo_app.encoder import checkpoint
from silo_app.encoder.dataset import load
from silo_app.encoder.embed import embed, load_encoder
from silo_app.encoder.model import build, to_vector
from silo_app.errors import ImageUnsupported, NotReady


@pytest.fixture
def encoder(tmp_path, spec):
    models = tmp_path / "models"
    version = checkpoint.save(models, spec, to_vector(build(spec, 1)), {})
    checkpoint.set_current(models, version)
    return load_encoder(models)


def test_embeddings_are_unit_vectors_whatever_the_batch(encoder, spec):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32), np.uint8)
    vectors, logits = embed(encoder.model, pixels)
    assert vectors.shape == (70, 16)
    assert vectors.dtype == np.float32
    assert logits.shape == (70, 2)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(embed(encoder.model, pixels[66:67])[0], vectors[66:67], atol=1e-5)


def short_of_memory(monkeypatch, model, holds):
    """Let passes of more than so many views fail; return how many views each pass was asked to hold."""
    asked, forward = [], model.forward

    def one(views):
        asked.append(len(views))
        if len(views) > holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(views)

    monkeypatch.setattr(model, "forward", one)
    return asked


def test_where_memory_is_short_fewer_views_are_embedded_at_once(encoder, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32), np.uint8)
    expected, told = embed(encoder.model, pixels), []
    asked = short_of_memory(monkeypatch, encoder.model, 20)
    found = embed(encoder.model, pixels, lambda *done: told.append(done))
    assert asked == [64, 32, 16, 16, 16, 16, 6]
    assert told == [(16, 70), (32, 70), (48, 70), (64, 70), (70, 70)]
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_memory_that_does_not_hold_one_view_is_an_error_with_a_remedy(encoder, monkeypatch):
    short_of_memory(monkeypatch, encoder.model, 0)
    with pytest.raises(NotReady, match="does not hold one view"):
        embed(encoder.model, np.zeros((3, 32, 32), np.uint8))


def test_nothing_in_nothing_out(encoder):
    vectors, logits = embed(encoder.model, np.empty((0, 32, 32), np.uint8))
    assert vectors.shape == (0, 16)
    assert logits.shape == (0, 2)


def test_a_file_embeds_as_the_silo_holds_it(encoder, make_silo, make_dicom, spec, tmp_path):
    """The query's path (file, decoded now) and the gallery's (cache) end in the same vector."""
    from silo_app.imaging.ingest import ingest

    home = make_silo()
    file = tmp_path / "source" / "one.dcm"
    file.write_bytes(make_dicom())
    ingest(home, workers=1)
    gallery, _ = embed(encoder.model, load(home, spec).pixels)
    assert np.allclose(encoder.file(file), gallery[0], atol=1e-6)


def test_both_polarities_of_one_picture_embed_alike(encoder, make_dicom, make_picture, tmp_path):
    pixels = make_picture()
    first, second = tmp_path / "1.dcm", tmp_path / "2.dcm"
    first.write_bytes(make_dicom(pixels))
    second.write_bytes(make_dicom(4095 - pixels, PhotometricInterpretation="MONOCHROME1"))
    assert encoder.file(first) @ encoder.file(second) > 0.999


def test_what_is_no_image_is_refused_with_its_reason(encoder, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not an image")
    with pytest.raises(ImageUnsupported):
        encoder.file(file)


def test_a_silo_without_an_encoder_is_not_ready(tmp_path):
    with pytest.raises(NotReady, match="no encoder yet"):
        load_encoder(tmp_path)
