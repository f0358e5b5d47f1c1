import numpy as np
import pytest

from silo_app.cases import Split
from silo_app.catalogue import Catalogue
from silo_app.encoder import checkpoint
from silo_app.encoder.local import train_local
from silo_app.encoder.settings import TrainSettings
from silo_app.errors import NotReady

SETTINGS = TrainSettings(batch_size=8, precision="float32")


def test_a_local_encoder_is_kept_with_its_card_and_is_not_current(fill_silo, spec):
    home = fill_silo()
    told = []
    trained = train_local(
        home, spec, SETTINGS, rounds=2, seed=1, progress=lambda what, done, total: told.append((what, done, total))
    )
    kept = checkpoint.load(home.models, trained.version)
    assert kept.card["kind"] == "local only"
    assert kept.card["silos"] == {"alpha": 36}
    assert trained.steps == 2 * SETTINGS.steps_for(36) == 8
    assert trained.curve == []
    assert told[-1] == ("round 2/2", 8, 8)
    with pytest.raises(NotReady):
        checkpoint.current_version(home.models)


def test_it_is_reproducible_and_the_curve_changes_nothing(fill_silo, spec):
    home, other = fill_silo("alpha", seed=1), fill_silo("beta", seed=2)
    plain = train_local(home, spec, SETTINGS, rounds=1, seed=1)
    followed = train_local(home, spec, SETTINGS, rounds=1, seed=1, curve=True, also_evaluate=[home, other])
    assert followed.version == plain.version
    assert [point.round for point in followed.curve] == [0, 1]
    assert [point.views for point in followed.curve] == [24, 24], "its own held-out views count once"
    assert all(0 <= point.auc["Pneumonia"] <= 1 for point in followed.curve)
    assert np.isfinite(followed.seconds)


def test_a_silo_without_images_is_not_ready(fill_silo, spec):
    with pytest.raises(NotReady, match="no images to train on"):
        train_local(fill_silo(views=0), spec, SETTINGS, rounds=1, seed=1)


def test_a_curve_without_held_out_patients_has_no_figures(fill_silo, spec):
    home = fill_silo(views=6)
    with Catalogue.open(home.catalogue) as catalogue:
        assert not catalogue.views(split=Split.HELD_OUT)
    trained = train_local(home, spec, SETTINGS, rounds=1, seed=1, curve=True)
    assert [(point.auc, point.views) for point in trained.curve] == [({}, 0)] * 2
