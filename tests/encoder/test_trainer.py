import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from silo_app.encoder.trainer import Trainer
from silo_app.encoder.vectors import read_vector, write_vector
from silo_app.errors import CheckpointInvalid, NotReady, PrivacyRefused, ProcessFailed, SiloscopeError
from silo_app.privacy.accountant import Steps, epsilon_of
from silo_app.privacy.ledger import PrivacyLedger

SETTINGS = {"batch_size": 4, "steps": 2, "precision": "float32"}
LONG = {"batch_size": 16, "steps": 100_000, "precision": "float32"}


@pytest.fixture
def home(fill_silo):
    return fill_silo(views=16)


@pytest.fixture
def trainer(home, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir(mode=0o700)
    with Trainer.start(home.kit, folder, threads=1) as trainer:
        yield trainer


@pytest.fixture
def opened(trainer, spec):
    return trainer.request("open", spec=spec.model_dump(mode="json"), seed=1)


def train(trainer, opened, settings=SETTINGS, **more):
    return trainer.request("train", weights=opened["weights"], settings=settings, round=0, rounds=1, seed=1, **more)


def gone(pid):
    """Whether the process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def within(seconds, what):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_whole_job_through_the_child(trainer, opened, home):
    """One child serves every operation here, because starting one costs seconds."""
    size = sum(int(np.prod(shape)) for _, shape in opened["layout"])
    assert len(read_vector(Path(opened["weights"]))) == size
    assert stat.S_IMODE(Path(opened["weights"]).stat().st_mode) == 0o600
    assert (opened["train_views"], opened["held_out_views"], opened["train_patients"]) == (12, 4, 6)
    assert opened["positives"] == {"Pneumonia": 6}
    child = trainer.pid

    told = []
    trained = train(trainer, opened, progress=lambda done, total: told.append((done, total)))
    assert (trained["steps"], trained["samples"]) == (2, 8)
    assert told[-1] == (2, 2)
    assert not np.array_equal(read_vector(Path(trained["weights"])), read_vector(Path(opened["weights"])))

    result = trainer.request("evaluate", weights=trained["weights"])
    assert result["views"] == 4
    assert set(result["auc"]) == {"Pneumonia"}
    assert 0 < result["loss"] < 10

    saved = trainer.request("save", weights=trained["weights"], card={"job": "j"}, current=True)
    assert (home.models / "current").read_text().strip() == saved["version"]
    assert json.loads((home.models / saved["version"] / "card.json").read_text())["job"] == "j"

    with pytest.raises(NotReady, match="no operation 'format_disk'"):
        trainer.request("format_disk")
    write_vector(Path(opened["weights"]), np.zeros(3, np.float32))
    with pytest.raises(CheckpointInvalid, match="values for a network of"):
        train(trainer, opened)
    assert trainer.pid == child, "an error is an answer, not the end of the child"


def test_a_killed_child_costs_its_request_and_closing_ends_the_next_in_the_middle_of_training(trainer, opened):
    first = trainer.pid
    threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
    with pytest.raises(ProcessFailed, match="signal SIGKILL during 'train'"):
        train(trainer, opened, LONG)
    assert train(trainer, opened)["steps"] == 2, "the next child has opened the data by itself"
    second = trainer.pid
    assert second != first
    threading.Timer(0.5, trainer.close).start()
    with pytest.raises(ProcessFailed):
        train(trainer, opened, LONG)
    within(5, lambda: gone(second))
    with pytest.raises(ProcessFailed, match="the trainer was ended"):
        train(trainer, opened)


def test_a_child_that_hangs_costs_its_request_and_not_the_next(trainer, opened, monkeypatch):
    monkeypatch.setattr("silo_app.encoder.heard.SILENT_S", 10)
    hung = trainer.pid
    threading.Timer(0.5, os.kill, (hung, signal.SIGSTOP)).start()
    late = threading.Timer(60, os.kill, (hung, signal.SIGKILL))
    late.start()
    with pytest.raises(ProcessFailed, match="the trainer hung during 'train' and was ended"):
        train(trainer, opened, LONG)
    late.cancel()
    assert gone(hung)
    assert train(trainer, opened)["steps"] == 2


PRIVATE = {"batch_size": 4, "steps": 2, "contrast": 0.0}
ROUNDS = 3


@pytest.fixture
def private(home, spec, tmp_path):
    """A function that opens a private job of `ROUNDS` rounds in a silo that allows so much epsilon more than it costs."""
    whole = epsilon_of([Steps(1.5, 4 / 6, PRIVATE["steps"] * ROUNDS)], 1e-5)
    trainers = []

    def private(more):
        allowed = {"epsilon_total": whole + more, "delta": 1e-5}
        (home.kit / "local" / "silo.yaml").write_text(json.dumps({"name": "alpha", "training": {"privacy": allowed}}))
        trainers.append(trainer := Trainer.start(home.kit, tmp_path, threads=1))
        job = {"privacy": {"noise": 1.5, "delta": 1e-5}, "settings": PRIVATE, "rounds": ROUNDS, "left": ROUNDS}
        return trainer, trainer.request("open", spec=spec.model_dump(mode="json"), seed=1, private=job)

    yield private
    for trainer in trainers:
        trainer.close()


def kill(trainer):
    if (pid := trainer.pid) is not None:
        os.killpg(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def paid(home):
    with PrivacyLedger(home.privacy) as ledger:
        return [one.round for one in ledger.charges()]


def train_privately(trainer, opened, number):
    weights = opened["weights"]
    return trainer.request("train", weights=weights, settings=PRIVATE, round=number, rounds=ROUNDS, seed=1, job="job-1")


def test_a_private_job_goes_on_in_a_new_child_and_pays_for_what_is_left(private, home):
    """Its rounds are paid one by one: the new child must not ask for all of them on top of what the first has paid."""
    trainer, opened = private(more=0.01)
    train_privately(trainer, opened, 0)
    for number in range(1, ROUNDS):
        kill(trainer)
        train_privately(trainer, opened, number)
    assert paid(home) == list(range(ROUNDS))
    with pytest.raises(PrivacyRefused, match="1 rounds would bring"):
        train_privately(trainer, opened, ROUNDS)
    assert paid(home) == list(range(ROUNDS))


def test_a_new_child_that_cannot_open_a_private_job_trains_nothing(private, home):
    trainer, opened = private(more=1.0)
    train_privately(trainer, opened, 0)
    moved = home.catalogue.rename(home.catalogue.with_suffix(".moved"))
    for _ in range(2):
        kill(trainer)
        with pytest.raises(SiloscopeError):
            train_privately(trainer, opened, 1)
        assert paid(home) == [0]
    moved.rename(home.catalogue)
    train_privately(trainer, opened, 1)
    assert paid(home) == [0, 1]


def test_the_child_of_a_killed_parent_ends_in_the_middle_of_training(home, spec, tmp_path):
    program = f"""
import json, sys
from pathlib import Path
from silo_app.encoder.trainer import Trainer
trainer = Trainer.start(Path({str(home.kit)!r}), Path({str(tmp_path)!r}), threads=1)
opened = trainer.request("open", spec={spec.model_dump(mode="json")!r}, seed=1)
tell = lambda done, total: print(trainer.pid, flush=True)
trainer.request("train", weights=opened["weights"], settings={LONG!r}, round=0, rounds=1, seed=1, progress=tell)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    within(5, lambda: gone(child))


def test_a_child_that_cannot_start_says_what_it_printed(make_silo, tmp_path):
    kit = make_silo().kit
    (kit / "local" / "silo.yaml").write_text("name: '?'\n")
    with (
        Trainer.start(kit, tmp_path, threads=1) as trainer,
        pytest.raises(ProcessFailed, match=r"status 1 during 'open'(.|\n)*silo.yaml:name"),
    ):
        trainer.request("open", spec={}, seed=1)


def test_the_parent_never_loads_torch():
    program = "import sys, silo_app.encoder.trainer, silo_app.encoder.plan; assert not {'torch', 'monai'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
