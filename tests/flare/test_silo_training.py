"""What NVFlare's events do to a silo's part in a training."""

from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType

from silo_app.flare import silo_training
from silo_app.flare.silo_training import SiloTraining


@pytest.mark.parametrize(("event", "kept"), [(EventType.ABORT_TASK, True), (EventType.END_RUN, False)])
def test_a_jobs_end_leaves_no_weights_in_its_folder(tmp_path, monkeypatch, event, kept):
    """An aborted task ends the trainer alone: its caller may still be reading."""
    monkeypatch.setattr(silo_training, "job_folder", lambda _context: tmp_path)
    (tmp_path / "siloscope").mkdir()
    (tmp_path / "siloscope" / "trained.safetensors").write_bytes(b"weights")
    closed, training = [], SiloTraining()
    training._part = SimpleNamespace(close=lambda: closed.append(True))
    training.handle_event(event, None)
    assert closed == [True]
    assert (tmp_path / "siloscope").exists() == kept
