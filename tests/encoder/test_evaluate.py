import dataclasses
import json

import numpy as np
import pytest

from silo_app.encoder import checkpoint
from silo_app.encoder.dataset import load
from silo_app.encoder.evaluate import SiloImages, evaluate, evaluate_model, find_encoder
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import train_round
from silo_app.errors import EncoderMismatch, NotReady


@pytest.fixture
def homes(fill_silo):
    return [fill_silo("alpha", seed=1), fill_silo("beta", seed=2, views=64)]


def keep(home, spec, seed=1, *, current=True):
    version = checkpoint.save(home.models, spec, to_vector(build(spec, seed)), {"kind": "test"})
    if current:
        checkpoint.set_current(home.models, version)
    return version


def test_a_trained_encoder_beats_every_floor_on_held_out_patients(homes, spec):
    everything = [SiloImages(home.config.name, load(home, spec)) for home in homes]
    model = build(spec, 1)
    settings = TrainSettings(batch_size=16, steps=40, learning_rate=3e-3, contrast=0.5, precision="float32")
    for number in range(2):
        train = everything[1].images
        train_round(model, train.where(~train.held_out), settings, round_number=number, rounds=2, seed=1)
    result = evaluate_model(model, spec, everything, k=5)
    assert result.silos["alpha"] == {"train_views": 36, "held_out_views": 12, "held_out_patients": 6}
    assert set(result.findings) == {"pooled", "alpha", "beta"}
    pooled = result.findings["pooled"]["Pneumonia"]
    assert pooled.auc.value > 0.9 > result.statistics_auc["Pneumonia"]
    assert pooled.auc.low <= pooled.auc.value <= pooled.auc.high
    assert "Nodule" not in result.findings["pooled"], "nothing is known of it"
    for figures in (result.retrieval, result.retrieval_other_silos):
        assert set(figures) == {"encoder", "raw pixels", "untrained encoder"}
        assert figures["encoder"].precision > max(figures["raw pixels"].precision, figures["untrained encoder"].precision)
    assert result.retrieval_other_silos["encoder"].own_silo_share == 0


def test_a_report_is_json_and_names_no_patient(homes, spec):
    for home in homes:
        keep(home, spec)
    kept, result = evaluate(homes)
    said = json.dumps(dataclasses.asdict(result))
    assert kept.version == checkpoint.current_version(homes[0].models)
    assert not any(view.patient in said or view.digest in said for view in load(homes[0], spec).views)


def test_floors_can_be_left_out(homes, spec):
    keep(homes[0], spec)
    _, result = evaluate(homes[:1], with_floors=False)
    assert set(result.retrieval) == {"encoder"}
    assert not result.retrieval_other_silos
    assert not result.statistics_auc


def test_silos_with_different_encoders_need_a_choice(homes, spec):
    first = keep(homes[0], spec, seed=1)
    keep(homes[1], spec, seed=2)
    with pytest.raises(EncoderMismatch, match="the silos use different encoders: alpha"):
        find_encoder(homes, None)
    assert find_encoder(homes[::-1], first).version == first


def test_an_encoder_that_nobody_holds_is_said(homes, spec):
    keep(homes[0], spec)
    with pytest.raises(NotReady, match="none of these silos holds encoder"):
        find_encoder(homes, "0" * 32)


def test_nobody_held_out_is_said(homes, spec):
    images = load(homes[0], spec)
    with pytest.raises(NotReady, match="no patient of these silos is held out"):
        evaluate_model(build(spec, 1), spec, [SiloImages("alpha", images.where(~images.held_out))])


def test_findings_are_told_by_the_silo_s_own_head_and_neighbours_by_what_is_shared(homes, spec):
    whole = to_vector(build(spec, 1))
    head, shared = whole[-34:], np.concatenate([whole[:-34], np.zeros(34, np.float32)])
    expected = evaluate(homes[:1], keep(homes[0], spec), with_floors=False)[1]
    version = checkpoint.save(homes[0].models, spec, shared, {"kind": "test", "personal": "head"}, head)
    result = evaluate(homes[:1], version, with_floors=False)[1]
    assert result.findings == expected.findings
    assert result.retrieval == expected.retrieval
    checkpoint.save(homes[1].models, spec, shared, {"kind": "test", "personal": "head"}, head + 1)
    assert evaluate(homes, version, with_floors=False)[1].findings["alpha"]["Pneumonia"].auc.value == 0.5
