"""Columns that are read in the background: who waits for them, how old they get, and how often they are read."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.errors import NotReady
from silo_app.index.generations import open_current
from silo_app.policy.filters import Filters
from silo_app.search.narrowed import HeldRows, NarrowedRows

ADULT = Filters(age_bands=("40-49",))


@pytest.fixture
def silo(stocked):
    """Six cases, each with one view."""
    made = stocked(cases=6)
    made.index()
    return made


@pytest.fixture
def narrowed(silo, monkeypatch):
    """Rows by a clock of their own; readings wait while `go_on` is not set."""
    found = SimpleNamespace(now=0.0, reads=0, go_on=threading.Event(), index=open_current(silo.home.index).gallery)
    found.go_on.set()
    real = Catalogue.card_columns

    def columns(catalogue):
        found.reads += 1
        assert found.go_on.wait(10)
        return real(catalogue)

    monkeypatch.setattr(Catalogue, "card_columns", columns)
    found.rows = NarrowedRows(silo.home.catalogue, clock=lambda: found.now)
    yield found
    found.go_on.set()
    found.rows.close()


def settled(rows):
    with rows._changed:
        assert rows._changed.wait_for(lambda: not rows._reading, 10)


def test_who_comes_first_waits_as_long_as_said(narrowed):
    narrowed.go_on.clear()
    start = time.monotonic()
    assert not narrowed.rows.prepare(0.2)
    assert 0.1 < time.monotonic() - start < 5
    with pytest.raises(NotReady, match="not been read yet"):
        narrowed.rows.rows(ADULT, narrowed.index, 1)
    narrowed.go_on.set()
    assert narrowed.rows.prepare(10)
    assert len(narrowed.rows.rows(ADULT, narrowed.index, 1)) == 6
    assert narrowed.reads == 1


def test_nobody_waits_for_what_is_new_while_the_old_is_seconds_old(narrowed, silo):
    assert narrowed.rows.prepare(10)
    silo.recall(next(iter(silo.vectors)))
    narrowed.go_on.clear()
    narrowed.now = 2.0
    for _ in range(3):
        assert narrowed.rows.prepare(0)
        assert len(narrowed.rows.rows(ADULT, narrowed.index, 1)) == 6
    narrowed.go_on.set()
    settled(narrowed.rows)
    assert len(narrowed.rows.rows(ADULT, narrowed.index, 1)) == 5
    assert narrowed.reads == 2


def test_what_is_older_is_not_used(narrowed, silo):
    assert narrowed.rows.prepare(10)
    silo.recall(next(iter(silo.vectors)))
    narrowed.go_on.clear()
    narrowed.now = 3600.0
    assert not narrowed.rows.prepare(0)
    narrowed.go_on.set()
    assert narrowed.rows.prepare(10)
    assert len(narrowed.rows.rows(ADULT, narrowed.index, 1)) == 5


def test_while_nothing_changes_nothing_is_read(narrowed):
    for narrowed.now in (0.0, 1.0, 100.0, 5000.0):
        assert narrowed.rows.prepare(10)
    assert narrowed.reads == 1


def test_reading_takes_a_third_of_the_time_at_most(narrowed, silo):
    assert narrowed.rows.prepare(10)
    narrowed.go_on.clear()
    silo.stock(98, 1)
    narrowed.now = 1.0
    assert narrowed.rows.prepare(0)
    narrowed.now = 5.0  # it takes four seconds
    narrowed.go_on.set()
    settled(narrowed.rows)
    silo.stock(99, 1)
    for narrowed.now in (6.0, 9.0, 12.9):
        assert narrowed.rows.prepare(0)
        settled(narrowed.rows)
        assert narrowed.reads == 2
    narrowed.now = 13.0
    assert narrowed.rows.prepare(0)
    settled(narrowed.rows)
    assert narrowed.reads == 3


def test_a_catalogue_that_is_gone_is_said_at_once_and_read_when_it_is_back(narrowed, silo):
    away = silo.home.catalogue.rename(silo.home.catalogue.with_suffix(".away"))
    assert narrowed.rows.prepare(10)
    with pytest.raises(NotReady):
        narrowed.rows.rows(ADULT, narrowed.index, 1)
    away.rename(silo.home.catalogue)
    narrowed.now = 1.0
    assert narrowed.rows.prepare(10)
    assert len(narrowed.rows.rows(ADULT, narrowed.index, 1)) == 6


def test_who_is_held_is_never_old_and_looked_up_once_a_change(silo, monkeypatch):
    index, reads, real = open_current(silo.home.index).gallery, [], Catalogue.case_names
    monkeypatch.setattr(Catalogue, "case_names", lambda catalogue: reads.append(1) or real(catalogue))
    held = HeldRows(silo.home.catalogue)
    for _ in range(3):
        assert held.rows(index, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(reads) == 1
    digest = next(iter(silo.vectors))
    with Catalogue.open(silo.home.catalogue) as catalogue:
        case = catalogue.case_of_digest(digest)
    silo.recall(digest)
    assert {index.case_of(row) for row in range(6)} - {index.case_of(row) for row in held.rows(index, 1)} == {case}
    assert len(reads) == 2
    held.close()


def test_the_names_of_cases_are_those_of_their_cards(silo):
    with Catalogue.open(silo.home.catalogue) as catalogue:
        assert np.array_equal(catalogue.case_names(), catalogue.card_columns().cases)
