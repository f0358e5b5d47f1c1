"""The trainer's operations without the child process around them: what a graphics processor's memory does to them."""

import json
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch
import yaml

from silo_app import config
from silo_app.encoder import worker as module
from silo_app.encoder.train import train_round
from silo_app.encoder.vectors import read_vector
from silo_app.encoder.worker import Worker, serve
from silo_app.errors import NotReady, PrivacyRefused

SETTINGS = {"batch_size": 8, "steps": 2, "precision": "float32"}


class Ended(Exception):
    """Ends `serve`, which otherwise answers as long as the process lives."""


class Answers:
    """Where one answer goes."""

    def say(self, message):
        self.said = message
        raise Ended


@pytest.fixture
def home(fill_silo):
    return fill_silo(views=16)


def opened(home, folder, spec, **more):
    folder.mkdir()
    worker = Worker(home.kit, folder)
    return worker, worker.open(print, spec=spec.model_dump(mode="json"), seed=1, **more)["weights"]


def trained(worker, weights, **more):
    answer = worker.train(print, weights=weights, settings=SETTINGS, round=0, rounds=1, seed=1, **more)
    return answer, read_vector(Path(answer["weights"]))


def short_of_memory(monkeypatch, holds):
    """Let a round fail where more views than memory holds pass at once; it leaves the weights changed."""

    def one(model, *args, means, **named):
        if (means.at_once or 8) > holds:
            for weight in model.parameters():
                weight.data.fill_(float("nan"))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_round(model, *args, means=means, **named)

    monkeypatch.setattr(module, "train_round", one)


def test_where_memory_is_short_a_round_is_trained_in_parts_from_its_beginning(home, spec, tmp_path, monkeypatch):
    small = yaml.safe_dump({"name": "alpha", "training": {"views_at_once": 2}})
    worker, weights = opened(home, tmp_path / "a", spec)
    whole, expected = trained(worker, weights)
    assert "views_at_once" not in whole
    short_of_memory(monkeypatch, 3)
    answer, vector = trained(worker, weights)
    assert answer["views_at_once"] == 2
    np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-4)
    again, same = trained(worker, weights)
    assert "views_at_once" not in again, "it is told once"
    assert same.tobytes() == vector.tobytes()

    (home.kit / "local" / "silo.yaml").write_text(small)
    as_set, weights = opened(config.load(home.kit), tmp_path / "b", spec)
    answer, same = trained(as_set, weights)
    assert "views_at_once" not in answer
    assert same.tobytes() == vector.tobytes()


def test_a_private_round_is_not_tried_twice(home, spec, tmp_path, monkeypatch):
    """It has been paid for, and its memory does not depend on the parts."""
    calls = []

    def one(*args, **named):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "train_round_privately", one)
    settings = SETTINGS | {"contrast": 0.0}
    private = {"privacy": {"epsilon": 50.0}, "settings": settings, "rounds": 1, "left": 1}
    worker, weights = opened(home, tmp_path / "a", spec, private=private)
    requests, answers = SimpleQueue(), Answers()
    request = {"op": "train", "weights": weights, "settings": settings, "round": 0, "rounds": 1, "seed": 1, "job": "j"}
    requests.put(json.dumps(request))
    with pytest.raises(Ended):
        serve(worker, requests, answers.say)
    assert answers.said["error"]["code"] == "not-ready"
    assert "memory is used up" in answers.said["error"]["problem"]
    assert "nvidia-smi" in answers.said["error"]["remedy"]
    assert len(calls) == 1


def test_who_was_refused_a_private_job_trains_no_round_of_it(fill_silo, spec, tmp_path):
    """Also if it is asked: neither without noise nor unpaid."""
    home = fill_silo(views=16)
    allowed = {"name": "alpha", "training": {"privacy": {"epsilon_total": 0.1}}}
    (home.kit / "local" / "silo.yaml").write_text(yaml.safe_dump(allowed))
    settings = SETTINGS | {"contrast": 0.0}
    private = {"privacy": {"noise": 1.5}, "settings": settings, "rounds": 4, "left": 4}
    worker, weights = opened(home, tmp_path / "a", spec)
    with pytest.raises(PrivacyRefused, match=r"0\.1 is allowed"):
        worker.open(print, spec=spec.model_dump(mode="json"), seed=1, private=private)
    with pytest.raises(NotReady, match="has no data"):
        worker.train(print, weights=weights, settings=settings, round=0, rounds=4, seed=1, job="j")
    with pytest.raises(NotReady, match="has no data"):
        worker.evaluate(print, weights=weights)
