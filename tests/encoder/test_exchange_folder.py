"""Weights that were exchanged with the trainer go with the job, also with one whose process was killed."""

from silo_app.encoder.exchange_folder import NAME, remove_left_over
from silo_app.encoder.journal import Journal


def exchanged(kit, job):
    (kit / job / NAME).mkdir(parents=True)
    (kit / job / NAME / "trained.safetensors").write_bytes(b"weights")


def test_only_trainings_that_are_over_lose_their_folder(tmp_path):
    kit, jobs = tmp_path / "kit", tmp_path / "jobs"
    for job in ("killed", "running", "evaluation"):
        exchanged(kit, job)
    Journal(jobs / "killed").close()
    running = Journal(jobs / "running")
    assert remove_left_over(kit, jobs) == ["killed"]
    assert sorted(file.parent.parent.name for file in kit.rglob("*.safetensors")) == ["evaluation", "running"]
    assert (kit / "killed").is_dir()  # NVFlare's own files stay
    running.close()
    assert remove_left_over(kit, jobs) == ["running"]
