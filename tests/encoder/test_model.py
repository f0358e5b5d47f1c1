import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from silo_app.encoder.model import build, layout_of, load_vector, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import CheckpointInvalid


def test_shapes(spec):
    embedding, logits = build(spec, 1)(torch.zeros(3, 1, 32, 32))
    assert embedding.shape == (3, 16)
    assert logits.shape == (3, 2)


def test_the_default_network_is_densenet121_with_group_norm_and_no_state_beside_its_weights():
    model = build(EncoderSpec(), 1)
    assert sum(isinstance(part, nn.GroupNorm) for part in model.modules()) == 121
    assert not any(isinstance(part, nn.modules.batchnorm._NormBase) for part in model.modules())
    assert not any(part.inplace for part in model.modules() if isinstance(part, nn.ReLU))
    assert not list(model.buffers())
    assert model.embedding.in_features == 1024
    assert 7_000_000 < len(to_vector(model)) < 7_400_000


@pytest.mark.parametrize(("backbone", "millions"), [("densenet-small", 0.056), ("densenet-medium", 0.44)])
def test_smaller_densenets_are_of_the_size_that_the_docs_say(backbone, millions):
    model = build(EncoderSpec(backbone=backbone), 1)
    assert len(to_vector(model)) / 1e6 == pytest.approx(millions, rel=0.01)
    assert not list(model.buffers())


def test_mednext_is_as_stateless_and_learns_of_whole_images(spec):
    model = build(spec.model_copy(update={"backbone": "mednext-small"}), 1)
    assert not any(isinstance(part, nn.modules.batchnorm._NormBase) for part in model.modules())
    assert not list(model.buffers())
    assert [name for name, _ in layout_of(model)] == [name for name, _ in model.named_parameters()]
    assert 600_000 < len(to_vector(model)) < 1_600_000
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert model.features(images).shape == (2, 256, 2, 2)
    alone = torch.cat([model(one[None])[0] for one in images])
    torch.testing.assert_close(model(images)[0], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-4)


def test_the_seed_decides_the_start_weights(spec):
    assert np.array_equal(to_vector(build(spec, 1)), to_vector(build(spec, 1)))
    assert not np.array_equal(to_vector(build(spec, 1)), to_vector(build(spec, 2)))


def test_start_weights_are_the_same_in_another_process_whatever_was_drawn_before(spec):
    torch.rand(7)
    program = (
        "import sys; from silo_app.encoder.model import build, to_vector; from silo_app.encoder.spec import EncoderSpec;"
        "sys.stdout.buffer.write(to_vector(build(EncoderSpec.model_validate_json(sys.argv[1]), 5)).tobytes())"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, spec.model_dump_json()]
    other = subprocess.run(command, capture_output=True, check=True).stdout
    assert other == to_vector(build(spec, 5)).tobytes()


def test_building_leaves_the_callers_random_numbers_alone(spec):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build(spec, 3)
    assert torch.equal(torch.rand(1), expected)


def test_a_vector_goes_in_and_comes_out_unchanged(spec):
    model = build(spec, 1)
    vector = np.random.default_rng(0).normal(size=to_vector(model).shape).astype(np.float32)
    load_vector(model, vector)
    assert np.array_equal(to_vector(model), vector)


def test_the_layout_names_every_value_of_the_vector(spec):
    model = build(spec, 1)
    layout = layout_of(model)
    assert sum(int(np.prod(shape)) for _, shape in layout) == len(to_vector(model))
    assert layout[-1] == ("findings.bias", (2,))
    assert len({name for name, _ in layout}) == len(layout)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_vector_of_another_network_is_refused(spec, change):
    model = build(spec, 1)
    with pytest.raises(CheckpointInvalid, match="values for a network of"):
        load_vector(model, np.zeros(len(to_vector(model)) + change, np.float32))


@pytest.mark.parametrize("backbone", ["densenet-small", "densenet-medium", "mednext-small"])
def test_an_inner_product_of_embeddings_is_a_mean_over_image_positions(spec, backbone):
    model = build(spec.model_copy(update={"backbone": backbone}), 1).eval()
    nn.init.zeros_(model.embedding.bias)
    with torch.no_grad():
        images = torch.rand(2, 1, 64, 64)
        maps = nn.functional.relu(model.features(images))
        one, other = model(images)[0]
        positions = nn.functional.conv2d(maps[:1], model.embedding.weight[:, :, None, None])  # (1, D, h, w)
        assert torch.allclose((positions[0] * other[:, None, None]).sum(0).mean(), one @ other, atol=1e-5)
