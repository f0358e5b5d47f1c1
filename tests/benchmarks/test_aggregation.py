"""The aggregation benchmark's own arithmetic, on a small network."""

from benchmarks import aggregation


def test_the_layout_has_the_size_of_the_encoder():
    layout = aggregation.densenet121()
    assert 6.9e6 < layout.size < 7.3e6
    assert {"conv0", "block4.layer16.conv2", "embedding.weight"} <= set(layout.names)


def test_every_target_is_measured():
    layout = aggregation.Layout(("w",), ((100,),))
    names = {figure.name for figure in aggregation.figures_of(layout, 12, 1)}
    assert {target.figure for target in aggregation.TARGETS} <= names
