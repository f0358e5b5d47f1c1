"""Tensors in one flat vector."""

import numpy as np
import pytest

from silo_app.aggregation.layout import Layout, digest_of
from silo_app.errors import UpdateRefused

TENSORS = {"a": np.arange(6.0).reshape(2, 3), "scalar": np.float32(7), "b": np.arange(4)}
LAYOUT = Layout.of(TENSORS)


def test_tensors_come_back_as_they_went():
    vector = LAYOUT.flatten(TENSORS)
    assert (vector.dtype, vector.shape, LAYOUT.size) == (np.float32, (11,), 11)
    back = LAYOUT.unflatten(vector)
    assert list(back) == list(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_the_order_of_the_tensors_given_does_not_matter():
    np.testing.assert_array_equal(LAYOUT.flatten(dict(reversed(TENSORS.items()))), LAYOUT.flatten(TENSORS))


@pytest.mark.parametrize(
    "tensors",
    [{**TENSORS, "b": np.arange(5)}, {**TENSORS, "c": np.arange(4)}, {"a": TENSORS["a"]}, {}],
    ids=["other shape", "one more", "one less", "none"],
)
def test_tensors_of_another_network_are_refused(tensors):
    with pytest.raises(UpdateRefused, match="do not have the names and shapes"):
        LAYOUT.flatten(tensors)


@pytest.mark.parametrize(
    ("names", "shapes"), [(("a", "a"), ((1,), (2,))), (("a",), ((1,), (2,))), ((), ()), (("a",), ((0,),))]
)
def test_a_layout_that_cannot_be_is_refused(names, shapes):
    with pytest.raises(UpdateRefused):
        Layout(names, shapes)


def test_digests_tell_names_shapes_and_order_apart():
    others = [
        Layout(("a", "b"), ((2, 3), (4,))),
        Layout(("a", "b"), ((3, 2), (4,))),
        Layout(("b", "a"), ((4,), (2, 3))),
        Layout(("a", "c"), ((2, 3), (4,))),
    ]
    assert len({layout.digest for layout in others}) == 4
    assert digest_of(np.zeros(3, np.float32)) != digest_of(np.zeros(4, np.float32))
