"""A silo's own notes of a job, as they are written and as they are read while a line is being written."""

import errno
from pathlib import Path

import pytest

from silo_app.encoder.journal import Journal, JournalRound, read_journal

SUMS = {"steps": 10.0, "loss_steps": 5.0, "held_out_known": 20.0, "held_out_loss_known": 8.0}


@pytest.fixture
def folder(tmp_path):
    """The journal of a job after its second sum."""
    journal = Journal(tmp_path)
    journal.opened(0, 0, ["a", "b", "c"], {})
    journal.held_out(0, {"auc": {}, "loss": 0.7, "views": 6})
    journal.trained(0, {"steps": 4, "train_seconds": 1.5})
    journal.opened(1, 1, ["a", "b"], SUMS | {"held_out_known": 0.0})
    journal.held_out(1, {"auc": {"Mass": 0.6, "Edema": 0.8}, "loss": 0.5, "views": 6})
    journal.trained(1, {"steps": 4, "train_seconds": 2.5})
    journal.opened(2, 2, ["a", "b", "c"], SUMS)
    return tmp_path


def test_numbers_stand_with_the_round_that_they_are_of(folder):
    assert read_journal(folder) == [
        JournalRound(
            round=0,
            steps=4,
            train_seconds=1.5,
            silos=2,
            loss=0.5,
            pooled_held_out_loss=0.4,
            held_out_loss=0.5,
            held_out_auc=pytest.approx(0.7),
        ),
        JournalRound(round=1, steps=4, train_seconds=2.5, silos=3, loss=0.5),
    ]


def test_the_last_weights_are_judged_by_a_round_of_numbers(folder):
    Journal(folder).opened(2, 3, ["a", "b"], {"held_out_known": 10.0, "held_out_loss_known": 3.0, "samples": 9.0})
    last = read_journal(folder)[-1]
    assert (last.round, last.loss, last.silos, last.pooled_held_out_loss) == (1, 0.5, 3, 0.3)


def test_half_a_line_is_left_for_the_next_time(folder):
    before = read_journal(folder)
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"round": 2, "own": {"st')
    assert read_journal(folder) == before


def test_a_line_that_a_killed_process_did_not_finish_costs_itself_alone(tmp_path):
    Journal(tmp_path).trained(0, {"steps": 1.0})
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 1, "own": {"st')
    Journal(tmp_path).trained(2, {"steps": 3.0})
    assert [(one.round, one.steps) for one in read_journal(tmp_path)] == [(0, 1.0), (2, 3.0)]


def test_scores_may_lie_on_another_disk(tmp_path, monkeypatch):
    """The job's folder is in the startup kit, which need not be where the silo's home is."""

    def other_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    scores = tmp_path / "scores.npz"
    scores.write_bytes(b"scores")
    journal = Journal(tmp_path / "jobs")
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: other_disk() if a.parent != Path(b).parent else replace(a, b))
    journal.held_out(3, {"loss": 0.5, "auc": {}, "views": 2, "scores": str(scores)})
    kept = tmp_path / "jobs" / "scores-0003.npz"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"scores", 0o600)
    assert not scores.exists()


def test_a_job_without_a_journal_has_no_rounds(tmp_path):
    assert read_journal(tmp_path / "none") == []
