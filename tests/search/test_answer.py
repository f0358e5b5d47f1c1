"""A silo's answer: same encoder or none, what the policy allows, and nothing that was recalled."""

import dataclasses

import pytest

from silo_app.config import ReleaseSettings
from silo_app.policy.refusal import RefusalCode
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.messages import Refusal, SiloAnswer

OPEN = ReleaseSettings(min_gallery=1, max_hits=1000, min_cases=1, same_patient="show")


@pytest.fixture
def gallery(silos):
    return SearchableCases("000007", silos["south"].encoder, silos["south"].gallery)


def ask(request, gallery, view_of, settings=OPEN):
    return answer(request, gallery, silo="south", view_of=view_of, settings=settings)


def test_it_answers_with_the_nearest_cases(request_of, gallery, a_view):
    request = request_of(k=5)
    reply = ask(request, gallery, a_view)
    assert isinstance(reply, SiloAnswer)
    assert (reply.silo, reply.query_id, reply.generation, reply.indexed) == ("south", request.query_id, "000007", 20)
    nearest = gallery.index.search(request.embedding, 5)
    assert [(hit.case, hit.score) for hit in reply.hits] == [(hit.case, hit.score) for hit in nearest]


def test_the_policy_limits_hits_and_similarity(request_of, gallery, a_view):
    reply = ask(request_of(k=10), gallery, a_view, OPEN.model_copy(update={"max_hits": 3}))
    assert len(reply.hits) == 3
    reply = ask(request_of(k=20), gallery, a_view, OPEN.model_copy(update={"min_similarity": 0.2}))
    assert 0 < len(reply.hits) < 20
    assert all(hit.score >= 0.2 for hit in reply.hits)


REFUSED = {
    RefusalCode.NOT_ANSWERING: {"answer_queries": False},
    RefusalCode.PURPOSE: {"purposes": ("teaching",)},
    RefusalCode.ASKER: {"askers": ("west",)},
    RefusalCode.GALLERY_TOO_SMALL: {"min_gallery": 21},
}


@pytest.mark.parametrize("code", REFUSED)
def test_the_policy_refuses(code, request_of, gallery, a_view):
    request = request_of()
    reply = ask(request, gallery, a_view, ReleaseSettings(**({"min_gallery": 1} | REFUSED[code])))
    assert reply == Refusal.of("south", code, query_id=request.query_id)


def test_a_policy_that_refuses_is_asked_before_anything_is_told_about_the_index(request_of, a_view):
    reply = ask(request_of(), None, a_view, ReleaseSettings(answer_queries=False))
    assert reply.code is RefusalCode.NOT_ANSWERING


def test_no_index_is_not_ready(request_of, a_view):
    assert ask(request_of(), None, a_view).code is RefusalCode.NOT_READY


def test_another_encoder_is_named(request_of, gallery, a_view):
    other = dataclasses.replace(gallery, encoder_version="cd" * 16)
    reply = ask(request_of(), other, a_view)
    assert (reply.code, reply.encoder_version) == (RefusalCode.OTHER_ENCODER, "cd" * 16)


def test_a_vector_of_another_length_is_another_encoder(request_of, gallery, a_view):
    import numpy as np

    assert ask(request_of(np.ones(8, np.float32)), gallery, a_view).code is RefusalCode.OTHER_ENCODER


def test_recalled_cases_are_left_out_and_others_take_their_place(request_of, gallery, a_view):
    request = request_of(k=5)
    ranked = [hit.case for hit in gallery.index.search(request.embedding, 20)]
    recalled = {*ranked[:3], ranked[5]}
    reply = ask(request, gallery, lambda case: None if case in recalled else a_view(case))
    assert [hit.case for hit in reply.hits] == [case for case in ranked if case not in recalled][:5]


def test_all_cases_recalled_is_too_few(request_of, gallery):
    assert ask(request_of(), gallery, lambda _case: None).code is RefusalCode.TOO_FEW_SIMILAR


def test_nothing_that_is_not_allowed_is_in_the_answer(request_of, gallery, a_view):
    reply = ask(request_of(), gallery, a_view, ReleaseSettings(min_gallery=1, fields=()))
    assert "secret" not in repr(reply)
    assert "F" not in reply.hits[0].card.model_dump().values()
