"""`silo job watch`: a row for every round, what became of every silo, and what only a silo itself knows."""

import io
import re
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from silo_app.cli import edge
from silo_app.cli.following import tables
from silo_app.cli.main import app
from silo_app.encoder.job_record import Quarantined, RoundRecord
from silo_app.encoder.journal import Journal, JournalRound


def cells_of(table):
    screen = Console(file=io.StringIO(), width=250)
    screen.print(table)
    return [re.split(r" {2,}", line.strip()) for line in screen.file.getvalue().splitlines()]


def records():
    statistics = RoundRecord(number=0, content="statistics", participants=("a", "b"), contributors=("a", "b"))
    void = RoundRecord(number=1, content="update", round=0, participants=("a", "b"), void="too few")
    void.quarantine({"b": Quarantined.absence("gone", "update")})
    good = RoundRecord(number=2, content="update", round=0, participants=("a", "b"), contributors=("a", "b"), seconds=7.31)
    good.upload_bytes = {"a": 2_500_000}
    good.steps = {"update": 5.0, "sign": 0.26}
    return [one.content_of() for one in (statistics, void, good)]


def test_every_round_says_who_is_in_it_and_who_is_not():
    rounds, silos = tables(records(), [])
    head, void, good = cells_of(rounds)
    assert head == ["round", "silos in the sum", "without", "seconds", "update", "sign", "reveal"]
    assert void == ["1", "void", "b: gone (update)", "0.0"]
    assert good == ["1", "2 of 2", "7.3", "5.0", "0.3"]
    assert cells_of(silos)[1:] == [["a", "1 of 1", "2.5"], ["b", "1 of 1", "round 1: gone", "0.0"]]


def test_a_silos_journal_has_a_table_of_its_own():
    known = JournalRound(round=0, steps=4, train_seconds=1.26, loss=0.5, held_out_loss=0.25, held_out_auc=0.75)
    head, row = cells_of(tables(records(), [known])[-1])
    assert head[1:] == ["own steps", "own seconds", "loss, all", "held-out loss, all", "held-out loss, own", "AUC, own"]
    assert row == ["1", "4", "1.3", "0.5000", "0.2500", "0.7500"]
    assert len(tables([], [known])) == 1


def test_before_there_is_a_round_there_is_no_table():
    assert tables(records()[:1], []) == []
    assert tables([], []) == []


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, ["job", "watch", *map(str, arguments)])
    return ended.value.code


def test_a_silo_follows_its_own_journal_until_it_has_finished(make_silo, capsys):
    home = make_silo()
    journal = Journal(home.root / "jobs" / "job")
    journal.trained(0, {"steps": 17, "train_seconds": 2.0})

    def go_on():
        journal.trained(1, {"steps": 23, "train_seconds": 2.0})
        journal.close()

    threading.Timer(0.5, go_on).start()
    assert run("job", "--silo", home.kit) == 0
    told = capsys.readouterr().err
    assert "17" in told
    assert "23" in told


def test_a_silo_whose_process_died_is_not_waited_for(make_silo, capsys):
    home = make_silo()
    folder = home.root / "jobs" / "job"
    program = f"""
import os, signal
from pathlib import Path
from silo_app.encoder.journal import Journal
Journal(Path({str(folder)!r})).trained(0, {{"steps": 17, "train_seconds": 2.0}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    (folder.parent).mkdir(parents=True)
    subprocess.run([sys.executable, "-c", program], check=False)
    assert run("job", "--silo", home.kit) == 0
    assert "17" in capsys.readouterr().err


def test_a_job_of_which_the_silo_knows_nothing_is_said(make_silo, capsys):
    assert run("../other", "--silo", make_silo().kit) == 1
    assert "this silo has no journal of job ../other" in capsys.readouterr().err


def test_nobody_to_ask_is_said(monkeypatch, capsys):
    monkeypatch.delenv("SILO_ADMIN", raising=False)
    assert run("job") == 2
    assert "neither --admin nor --silo is given" in capsys.readouterr().err
