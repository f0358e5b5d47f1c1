"""What the desk keeps open of the silo's own: checked when it is opened, and exchanged when it changes on disk."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.catalogue import reopened as reopened_module
from silo_app.errors import CatalogueDamaged, NotReady
from silo_app.index.known import known_vectors
from silo_app.search.desk import holdings as holdings_module
from silo_app.search.desk.holdings import Holdings

ENCODER, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def silo(stocked):
    made = stocked("south")
    made.index()
    return made


@pytest.fixture
def holdings():
    made = Holdings()
    yield made
    made.close()


@pytest.fixture
def opened(monkeypatch):
    """Count what is opened, which is checked whole then."""
    counts = {"catalogue": 0, "index": 0}
    open_catalogue, open_current = Catalogue.open, holdings_module.open_current

    def catalogue(*arguments):
        counts["catalogue"] += 1
        return open_catalogue(*arguments)

    def generation(*arguments):
        counts["index"] += 1
        return open_current(*arguments)

    monkeypatch.setattr(reopened_module.Catalogue, "open", catalogue)
    monkeypatch.setattr(holdings_module, "open_current", generation)
    return counts


def views(holdings, home):
    with holdings.catalogue(home) as catalogue:
        return {view.digest for view in catalogue.views()}


def test_each_is_opened_once_for_many_looks_of_many_threads(silo, holdings, opened):
    digests = sorted(silo.vectors)
    expected = known_vectors(silo.home, ENCODER, digests[:3])

    def look(_number):
        found = holdings.known(silo.home, ENCODER, digests[:3])
        assert all(np.array_equal(found[digest], expected[digest]) for digest in digests[:3])
        return views(holdings, silo.home)

    with ThreadPoolExecutor(8) as pool:
        assert all(found == set(digests) for found in pool.map(look, range(40)))
    assert opened == {"catalogue": 1, "index": 1}


def test_what_is_recalled_ingested_or_restored_is_seen_at_once(silo, holdings, tmp_path):
    first, *others = sorted(silo.vectors)
    backup = shutil.copy(silo.home.catalogue, tmp_path / "backup.db")
    assert first in views(holdings, silo.home)
    silo.recall(first)
    assert views(holdings, silo.home) == set(others)
    for left in silo.home.catalogue.parent.glob("catalogue.db*"):
        left.unlink()
    with pytest.raises(NotReady), holdings.catalogue(silo.home):
        pass
    shutil.copy(backup, silo.home.catalogue)
    assert first in views(holdings, silo.home)


def test_a_catalogue_found_damaged_is_checked_at_the_next_look(silo, holdings, opened):
    views(holdings, silo.home)
    with pytest.raises(CatalogueDamaged), holdings.catalogue(silo.home):
        raise CatalogueDamaged("something", remedy="Restore it.")
    views(holdings, silo.home)
    assert opened["catalogue"] == 2


def test_a_new_generation_takes_the_place_of_the_old_one(silo, holdings, opened):
    digest = min(silo.vectors)
    assert set(holdings.known(silo.home, ENCODER, [digest])) == {digest}
    assert holdings.known(silo.home, OTHER, [digest]) == {}
    silo.index(OTHER)
    assert holdings.known(silo.home, ENCODER, [digest]) == {}
    assert set(holdings.known(silo.home, OTHER, [digest])) == {digest}
    assert opened["index"] == 2
    shutil.rmtree(silo.home.index)
    assert holdings.known(silo.home, OTHER, [digest]) == {}
    silo.index(OTHER)
    assert set(holdings.known(silo.home, OTHER, [digest])) == {digest}
