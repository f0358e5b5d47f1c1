"""MONAI's networks come alone and whole, and leave MONAI to others as it is."""

import contextlib
import subprocess
import sys

import torch

from silo_app.encoder import networks


def test_nothing_else_of_monai_is_imported_and_the_whole_is_there_for_who_wants_it():
    program = """
import sys
import silo_app.encoder.model
heavy = {"monai", "monai.networks", "pandas", "matplotlib", "matplotlib.pyplot"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import matplotlib.pyplot, monai.transforms
from monai.utils.jupyter_utils import has_matplotlib, plt
assert monai.transforms.LoadImage and has_matplotlib and plt is matplotlib.pyplot
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_imported_before_stays():
    import matplotlib.pyplot as plt
    import monai.networks.nets

    before = {name: module for name, module in sys.modules.items() if name.startswith(("monai", "pandas", "matplotlib"))}
    networks._imported()
    after = {name: module for name, module in sys.modules.items() if name.startswith(("monai", "pandas", "matplotlib"))}
    assert before == after
    assert sys.modules["monai.networks.nets"] is monai.networks.nets
    assert sys.modules["matplotlib.pyplot"] is plt


def test_they_are_monais_own():
    from monai.networks.nets import DenseNet

    ours, monais = (
        made(spatial_dims=2, in_channels=1, out_channels=4, init_features=8, growth_rate=4, block_config=(2,))
        for made in (networks.DenseNet, DenseNet)
    )
    monais.load_state_dict(ours.state_dict())
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(ours.eval()(images), monais.eval()(images))


def test_a_monai_that_is_laid_out_differently_is_imported_as_usual(monkeypatch):
    from monai.networks.nets import DenseNet

    @contextlib.contextmanager
    def broken():
        raise ImportError("cannot import name 'x'")
        yield

    monkeypatch.setattr(networks, "_alone", broken)
    assert networks._imported()[0] is DenseNet
