"""Hits of the own silo are explained from its own images, and nothing else is."""

import json

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.config import load
from silo_app.encoder.region import Region
from silo_app.imaging.cache import RadiographCache
from silo_app.search.examples import Example
from silo_app.search.messages import ResultHit, SearchResult
from silo_app.search.query import Refinement, prepared
from silo_app.search.why import explained, why
from tests.search.test_query import FILES, Held


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return Held.made(tmp_path_factory.mktemp("why"))


@pytest.fixture
def fresh_cache(held):
    """The silo's cache, which is whole again after the test."""
    cache = RadiographCache(held.home.cache)
    before = {digest: cache.path(digest).read_bytes() for digest in cache.digests()}
    yield cache
    for digest, content in before.items():
        cache.path(digest).write_bytes(content)


def cases(held):
    with Catalogue.open(held.home.catalogue) as catalogue:
        return sorted({view.case for view in catalogue.views()})


def result(held, query, *hits):
    made = [ResultHit(silo=silo, case=case, score=0.5, card={"findings": {}}) for silo, case in hits]
    return SearchResult(query_id="0" * 32, encoder_version=query.encoder_version, k=10, hits=tuple(made), silos=())


def test_each_of_the_own_hits_is_compared_with_what_was_asked(held):
    refinement = Refinement(more=[Example(file=held.files["again"])], region=Region(0, 0, 0.7, 0.8))
    example = Example(file=held.files["one"])
    query = prepared(held.home, example, refinement)
    found = cases(held)
    pairs = why(held.home, example, query, result(held, query, ("test", found[1]), ("other", "c" * 32), ("test", found[0])))
    assert [pair.case for pair in pairs] == [found[1], found[0]]
    image = held.encoder.file(held.files["one"])
    for pair in pairs:
        own = held.encoder.radiographs([pair.hit.radiograph])[0]
        assert pair.hit.similarity == pytest.approx(float(own @ query.vector), abs=1e-5)
        assert pair.query.similarity == pytest.approx(float(own @ image), abs=1e-5)
        assert pair.query.shares.shape == pair.hit.shares.shape == (2, 2)


def test_of_a_case_with_two_images_the_nearest_is_shown(held):
    example = Example(file=held.files["right"])
    query = prepared(held.home, example)
    uid = Example(uid=FILES["right"][0])
    (case,) = prepared(held.home, uid).exclude
    (pair,) = why(held.home, example, query, result(held, query, ("test", case)))
    assert pair.hit.similarity == pytest.approx(1, abs=1e-5)
    (from_two,) = why(held.home, uid, prepared(held.home, uid), result(held, query, ("test", case)))
    assert from_two.query is None


def test_who_was_shown_which_cases_is_in_the_audit_log_and_nothing_of_the_images(held):
    example = Example(file=held.files["one"])
    query, found = prepared(held.home, example), cases(held)
    why(held.home, example, query, result(held, query, ("test", found[0]), ("other", "c" * 32)), user="dr.x")
    record = json.loads(held.home.audit.read_text().splitlines()[-1])
    assert (record["event"], record["user"], record["cases"]) == ("shown", "dr.x", [found[0]])
    assert "vector" not in record


def test_a_hit_that_was_recalled_since_is_left_out(held):
    example = Example(file=held.files["one"])
    query = prepared(held.home, example)
    assert why(held.home, example, query, result(held, query, ("test", "d" * 32))) == []


def test_a_hit_whose_image_is_not_in_the_cache_costs_no_other(held, fresh_cache):
    example = Example(file=held.files["one"])
    query, found = prepared(held.home, example), cases(held)
    with Catalogue.open(held.home.catalogue) as catalogue:
        views = {case: catalogue.views_of(case) for case in found}
    two = next(case for case in found if len(views[case]) == 2)
    lost = next(case for case in found if case != two)
    for view in (*views[lost], views[two][0]):
        fresh_cache.discard(view.digest)
    others = [case for case in found if case != lost]
    pairs = why(held.home, example, query, result(held, query, *(("test", case) for case in found)))
    assert [pair.case for pair in pairs] == others
    assert json.loads(held.home.audit.read_text().splitlines()[-1])["cases"] == others
    (pair,) = why(held.home, Example(case=lost), query, result(held, query, ("test", two)))
    assert pair.query is None


def test_two_images_explain_each_other(held):
    cache = RadiographCache(load(held.home.kit).cache)
    first, second = (cache.read(digest) for digest in sorted(cache.digests())[:2])
    parts = explained(held.encoder, first, second)
    vectors = held.encoder.radiographs([first, second])
    for part in parts:
        assert part.similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert np.array_equal(parts[0].radiograph, first)
