"""What an index process has open follows what is on disk: at once where it can, again and again where it cannot."""

import shutil
import threading
import time

import pytest

from silo_app.catalogue import Catalogue
from silo_app.errors import IndexDamaged, NotReady
from silo_app.index import storage
from silo_app.index.generations import open_current
from silo_app.policy.filters import Filters
from silo_app.search.current import CurrentGallery, OpenCatalogue

SICK = Filters(present=("Pneumonia",))


def until(condition, limit_s=5.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class FailingStorage(storage.Storage):
    """Opens nothing while `error` is set."""

    error = None
    tries = 0

    def open(self, folder, info, cases):
        FailingStorage.tries += 1
        if FailingStorage.error:
            raise FailingStorage.error
        return super().open(folder, info, cases)


@pytest.fixture
def failing():
    FailingStorage.error, FailingStorage.tries = None, 0
    return FailingStorage


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "error", [NotReady("Milvus did not answer", remedy="Wait."), MemoryError("no room"), RuntimeError("FAISS")]
)
def test_a_generation_that_cannot_be_opened_is_tried_again(stocked, failing, error):
    silo = stocked()
    silo.index()
    now = [0.0]
    current = CurrentGallery(silo.home.index, failing(), clock=lambda: now[0])
    assert current.get().generation == "000001"
    failing.error, failing.tries = error, 0
    silo.index()
    assert current.get().generation == "000001"
    for passed, tries in ((0.0, 1), (0.9, 1), (0.2, 2), (1.8, 2), (0.3, 3)):  # pauses of 1, 2, 4 seconds
        now[0] += passed
        current.get()
        until(lambda tries=tries: failing.tries == tries and not current._opening)
    failing.error = None
    assert current.get().generation == "000001"
    now[0] += 4.0
    until(lambda: current.get().generation == "000002")


def test_the_pause_is_a_minute_at_most_and_ends_with_a_newer_generation(stocked, failing):
    silo = stocked()
    silo.index()
    now = [0.0]
    current = CurrentGallery(silo.home.index, failing(), clock=lambda: now[0])
    current.get()
    failing.error, failing.tries = NotReady("Milvus did not answer", remedy="Wait."), 0
    silo.index()
    for tries in range(1, 20):
        current.get()
        until(lambda tries=tries: failing.tries == tries and not current._opening)
        now[0] += 60.0
    current.get()
    until(lambda: failing.tries == 20 and not current._opening)
    failing.error = None
    silo.index()
    until(lambda: current.get().generation == "000003")


def test_where_nothing_could_be_opened_yet_nobody_waits_for_the_next_try(stocked, failing):
    silo = stocked()
    silo.index()
    now, waiting, go_on = [0.0], threading.Event(), threading.Event()
    current = CurrentGallery(silo.home.index, failing(), clock=lambda: now[0])
    failing.error = NotReady("Milvus did not answer", remedy="Wait.")
    for passed, tries in ((0.0, 1), (0.9, 1), (0.2, 2), (1.8, 2), (0.3, 3), (4.1, 4), (4.9, 4), (0.2, 5), (5.1, 6)):
        now[0] += passed
        assert current.get() is None
        until(lambda tries=tries: failing.tries == tries and not current._opening)

    def hangs(_folder, _info, _cases):
        waiting.set()
        assert go_on.wait(10)
        raise IndexDamaged("Milvus does not have it", remedy="Build.")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(failing, "open", staticmethod(hangs))
        now[0] += 6.0
        assert current.get() is None
        assert waiting.wait(10)
        assert current.get() is None
        go_on.set()
        until(lambda: not current._opening)
    with pytest.raises(IndexDamaged):
        current.get()
    failing.error = None
    silo.index()
    until(lambda: current.get() is not None)
    assert current.get().generation == "000002"


def test_damage_is_found_once_until_something_new_is_published(stocked, failing):
    silo = stocked()
    silo.index()
    current = CurrentGallery(silo.home.index, failing())
    failing.error = IndexDamaged("it is not as it was written", remedy="Build.")
    for _ in range(3):
        with pytest.raises(IndexDamaged):
            current.get()
    assert failing.tries == 1
    failing.error = None
    silo.index()
    assert current.get().generation == "000002"


def narrowed(opened, index, serial):
    """Return the rows once what is there is too old to be used."""
    opened._narrowed._as_of = -float("inf")
    assert opened.prepare_narrowing(10)
    return opened.rows_where(SICK, index, serial)


def test_rows_follow_every_change_of_the_catalogue(stocked):
    silo = stocked(cases=6)
    silo.index()
    generation = open_current(silo.home.index)
    opened, index = OpenCatalogue(silo.home), generation.gallery
    with Catalogue.open(silo.home.catalogue) as catalogue:
        sick = {view.digest: view.case for view in catalogue.views() if any(view.findings.values())}

    def found():
        return {index.case_of(row) for row in narrowed(opened, index, 1)}

    assert found() == set(sick.values())
    digest, case = next(iter(sick.items()))
    silo.recall(digest)
    assert found() == set(sick.values()) - {case}
    silo.stock(99, 4)
    assert found() == set(sick.values()) - {case}
    silo.index()
    newer = open_current(silo.home.index).gallery
    assert len(narrowed(opened, newer, 2)) == len(sick) - 1 + 2
    assert found() == set(sick.values()) - {case}
    opened.close()


def test_a_replaced_catalogue_is_read_anew(stocked):
    silo = stocked(cases=6)
    silo.index()
    index = open_current(silo.home.index).gallery
    opened = OpenCatalogue(silo.home)
    assert len(narrowed(opened, index, 1)) == 3
    for file in silo.home.catalogue.parent.glob("catalogue.db*"):
        file.unlink()
    with Catalogue.open(silo.home.catalogue, create=True):
        pass
    assert narrowed(opened, index, 1).tolist() == []
    opened.close()


def test_nobody_who_looks_a_card_up_waits_for_a_narrowed_search(stocked, monkeypatch):
    silo = stocked(cases=6)
    silo.index()
    index = open_current(silo.home.index).gallery
    opened = OpenCatalogue(silo.home)
    reading, go_on = threading.Event(), threading.Event()
    real = Catalogue.card_columns

    def slow(catalogue):
        reading.set()
        assert go_on.wait(10)
        return real(catalogue)

    monkeypatch.setattr(Catalogue, "card_columns", slow)
    assert not opened.prepare_narrowing(0)
    assert reading.wait(10)
    assert opened.view_of(index.case_of(0)) is not None
    assert opened.as_it_is([index.case_of(1)])(index.case_of(1)) is not None
    go_on.set()
    assert opened.prepare_narrowing(10)
    assert len(opened.rows_where(SICK, index, 1)) == 3
    opened.close()


def test_a_rebuilt_index_is_another_although_its_name_is_the_same(stocked):
    silo = stocked(cases=6)
    silo.index()
    current, opened = CurrentGallery(silo.home.index), OpenCatalogue(silo.home)

    def found():
        gallery = current.get()
        return gallery, {gallery.index.case_of(row) for row in opened.rows_of(gallery)(SICK, gallery.index)}

    digests = sorted(silo.vectors)
    for digest in digests[:2]:
        silo.recall(digest)
    assert opened.prepare_narrowing(10)
    before, cases = found()
    shutil.rmtree(silo.home.index)
    silo.index()
    while (after := found())[0] is before:
        time.sleep(0.01)
    assert after[0].generation == before.generation == "000001"
    assert after[0].index.views < before.index.views
    assert after[1] == cases
    assert len(opened.rows_held(after[0])) == len(opened.rows_held(before)) == after[0].index.views
    opened.close()
