"""A search among some cases: what comes is what a search of these cases alone would give, and policy holds as ever."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.catalogue import Catalogue
from silo_app.config import ReleaseSettings, load
from silo_app.policy.filters import Filters
from silo_app.policy.refusal import RefusalCode
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.envelope import open_reply, seal
from silo_app.search.messages import Refusal, SiloAnswer
from silo_app.search.server import IndexProcess
from tests.search.conftest import ENCODER, BruteForceGallery, make_view, unit_rows

SEXES = ("F", "M", "U")
BANDS = {7: "0-9", 34: "30-39", 93: "90+"}


def gallery_of(seed, cases=30, views=50):
    rng = np.random.default_rng(seed)
    names = [rng.bytes(16).hex() for _ in range(cases)]
    gallery = BruteForceGallery(unit_rows(rng, views), [names[i % cases] for i in range(views)])
    cards = {name: make_view(name, sex=SEXES[rng.integers(3)], age=int(rng.choice(list(BANDS)))) for name in names}
    return gallery, cards


def asked(request, gallery, cards, **release):
    def rows_where(filters, index):
        return index.rows_of([case for case, card in cards.items() if filters.holds(card)])

    policy = ReleaseSettings(**({"min_gallery": 1, "min_cases": 1, "max_hits": 1000, "same_patient": "show"} | release))
    held = SearchableCases(generation="000001", encoder_version=ENCODER, index=gallery)
    return answer(request, held, silo="south", view_of=cards.get, settings=policy, rows_where=rows_where)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99), st.sets(st.sampled_from(SEXES)), st.sets(st.sampled_from(list(BANDS.values()))), st.integers(1, 40)
)
def test_a_filtered_search_is_a_search_of_the_filtered_cases(request_for, seed, sexes, bands, k):
    gallery, cards = gallery_of(seed)
    filters = Filters(sexes=tuple(sorted(sexes)), age_bands=tuple(sorted(bands)))
    kept = [row for row in range(gallery.views) if filters.holds(cards[gallery.names[row]])]
    reply = asked(request_for(k=k, filters=filters), gallery, cards)
    if not kept:
        assert reply.code is RefusalCode.GALLERY_TOO_SMALL
        return
    alone = BruteForceGallery(gallery.stored[kept], [gallery.names[row] for row in kept])
    assert [(hit.case, hit.score) for hit in reply.hits] == [
        (hit.case, hit.score) for hit in alone.search(request_for().embedding, k)
    ]


@pytest.fixture(scope="module")
def request_for():
    """Make an unsigned request; the vector is always the same."""
    from silo_app.search.messages import SearchRequest, unit_embedding

    def make(**fields):
        vector = unit_embedding(unit_rows(np.random.default_rng(1), 1)[0])
        known = {"issued_at_ms": int(time.time() * 1000), "budget_ms": 1000, "encoder_version": ENCODER}
        return SearchRequest(**(known | {"vector": vector, "k": 10, "purpose": "care", "asker": "north"} | fields))

    return make


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        (Filters(sexes=("F",)), "sex"),
        (Filters(age_bands=("30-39",)), "age_band"),
        (Filters(positions=("PA",)), "position"),
        (Filters(present=("Pneumonia",)), "findings"),
        (Filters(year_from=2000), "study_year"),
    ],
)
def test_nobody_is_looked_for_by_what_is_not_released(filters, field, request_for):
    gallery, cards = gallery_of(0)
    every = ("position", "sex", "age_band", "study_year", "findings")
    reply = asked(request_for(filters=filters), gallery, cards, fields=tuple(one for one in every if one != field))
    assert reply.code is RefusalCode.FILTER
    assert isinstance(asked(request_for(filters=filters), gallery, cards, fields=every), SiloAnswer)


def test_too_few_such_cases_are_not_pointed_at(request_for):
    gallery, cards = gallery_of(3)
    women = sum(card.sex == "F" for card in cards.values())
    few = Filters(sexes=("F",))
    assert isinstance(asked(request_for(filters=few), gallery, cards, min_gallery=women), SiloAnswer)
    assert asked(request_for(filters=few), gallery, cards, min_gallery=women + 1).code is RefusalCode.GALLERY_TOO_SMALL


def test_a_case_whose_card_has_changed_since_is_not_shown(request_for):
    gallery, cards = gallery_of(4)
    rows = gallery.rows_of(list(cards))  # as the catalogue was: the filter held for all
    reply = answer(
        request_for(filters=Filters(sexes=("F",)), k=50),
        SearchableCases(generation="000001", encoder_version=ENCODER, index=gallery),
        silo="south",
        view_of=cards.get,
        settings=ReleaseSettings(min_gallery=1, min_cases=1, max_hits=100, same_patient="show"),
        rows_where=lambda _filters, _index: rows,
    )
    assert {hit.card.sex for hit in reply.hits} == {"F"}
    assert len(reply.hits) == sum(card.sex == "F" for card in cards.values())


def test_the_index_process_narrows_by_its_catalogue(stocked, request_of):
    silo = stocked("south", cases=40, config="release: {min_cases: 1, same_patient: show}\n")
    silo.index()
    process = IndexProcess(load(silo.home.kit))
    north = stocked.federation.identity("north")

    def ask(**fields):
        frame = seal(north, request_of(next(iter(silo.vectors.values())), **fields))
        return open_reply(north, "south", frame, process.answer_frame(frame), SiloAnswer, Refusal)

    with Catalogue.open(silo.home.catalogue) as catalogue:
        sick = {view.case for view in catalogue.views() if any(view.findings.values())}
    reply = ask(k=20, filters=Filters(present=("Pneumonia",)))
    assert {hit.case for hit in reply.hits} == sick
    healthy = ask(k=20, filters=Filters(absent=("Pneumonia",)))
    assert len(healthy.hits) == 20
    assert not {hit.case for hit in healthy.hits} & sick
    silo.recall(next(digest for digest in silo.vectors if digest))
    again = ask(k=20, filters=Filters(present=("Pneumonia",)))
    assert len(again.hits) == 19
    assert ask(filters=Filters(year_from=2000)).code is RefusalCode.FILTER
    assert ask(filters=Filters(sexes=("F",))).code is RefusalCode.GALLERY_TOO_SMALL
    process.close()
    records = [json.loads(line) for line in silo.home.audit.read_text().splitlines()]
    assert records[0]["filters"] == ["findings"]
