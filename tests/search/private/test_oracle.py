"""What a silo can read that cheats: it has the query decrypted in place of scores, and looks at what the asker does then."""

from types import SimpleNamespace

import numpy as np
import pytest
import tenseal.sealapi as seal

from silo_app.search.messages import SiloReport, SiloState
from silo_app.search.private import ask, scheme
from silo_app.search.private.messages import CardsRequest, PrivateAnswer, PrivateRequest

DIMENSION = 256
ENCODER = "ab" * 32
K = 112
VIEWS = K + 16
"""As many as an asker of `K` looks at: two coordinates in each are the whole query."""
PACKED = 4096
BASE = 80_000_000
"""What makes every number look like a high similarity."""


class Cheat:
    """A silo that packs two coordinates of the query into each score."""

    def __init__(self, kept_back=0, **fields):
        known = {"indexed": VIEWS, "indexed_views": VIEWS, "generation": "1", "most": 1000, "kept_back": kept_back}
        self.fields = known | fields
        self.keys = None
        self.asked = []

    def said(self, asker, silo, request, kind, require):
        report = SiloReport(silo=silo, state=SiloState.ANSWERED, took_ms=1.0)
        if isinstance(request, CardsRequest):
            self.asked.append(request)
            return report.model_copy(update={"state": SiloState.DENIED}), None
        return report, self.scores(request)

    def scores(self, request: PrivateRequest):
        if request.keys:
            self.keys = scheme.loaded(seal.GaloisKeys(), request.keys, "keys")
        evaluator = seal.Evaluator(scheme.context())
        query = scheme.loaded(seal.Ciphertext(), request.ciphertext, "query")
        ahead = query
        for _ in range(VIEWS):
            turned = seal.Ciphertext()
            evaluator.apply_galois(ahead, scheme.galois_element(1), self.keys, turned)
            ahead = turned
        total, product = seal.Ciphertext(), seal.Ciphertext()
        evaluator.multiply_plain(ahead, plain(PACKED, scheme.ROW), total)
        evaluator.multiply_plain(query, plain(1, scheme.ROW), product)
        evaluator.add_inplace(total, product)
        evaluator.add_plain_inplace(total, plain(BASE, VIEWS))
        evaluator.mod_switch_to_next_inplace(total)
        self.blocks = (scheme.saved(total),)
        known = {"query_id": request.query_id, "silo": "south", "encoder_version": ENCODER, "views": VIEWS}
        return PrivateAnswer(**(known | self.fields), blocks=self.blocks)


def plain(value, count):
    """Return a plaintext of `value` in the first slots; the asker adds the second row, which is left empty."""
    slots = np.zeros(scheme.SLOTS, np.uint64)
    slots[:count] = value
    encoded = seal.Plaintext()
    seal.BatchEncoder(scheme.context()).encode(slots.tolist(), encoded)
    return encoded


def unpacked(similarity):
    """Return the query's coordinates that such scores are made of, int64 (DIMENSION,)."""
    packed = np.rint(similarity * scheme.SCALE**2).astype(np.int64) - BASE
    low = (packed + PACKED // 2) % PACKED - PACKED // 2
    return np.concatenate([low, (packed - low) // PACKED])


def any_query(seed):
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@pytest.fixture
def session(monkeypatch):
    """Begin a session whose only silo is `cheat`."""

    def begin(cheat):
        audit = SimpleNamespace(append=lambda *_: None, append_all=lambda *_: None)
        monkeypatch.setattr(ask, "known_silos", lambda *_: ("south",))
        monkeypatch.setattr(ask, "ask_silo", cheat.said)
        own = SimpleNamespace(silos=(), hits=())
        asker = SimpleNamespace(audit=audit, identity=SimpleNamespace(name="north"), ask_own=lambda _: own)
        return ask.PrivateSession(asker, ENCODER, DIMENSION)

    return begin


def without_names(request):
    return request.model_dump(exclude={"query_id", "scored", "issued_at_ms"})


def test_what_was_decrypted_does_not_reach_the_silo(session):
    """Two queries, each decrypted whole by its asker; the silo is told the same of both."""
    cheat = Cheat()
    asking = session(cheat)
    for seed in range(2):
        query = any_query(seed)
        asking.search(query, k=K)
        opened = asking._asking.open(list(cheat.blocks), VIEWS)
        assert np.array_equal(unpacked(opened), scheme.quantised(query[None])[0])  # the asker does decrypt the query
    one, other = cheat.asked
    assert without_names(one) == without_names(other)
    assert one.slots == tuple(range(VIEWS))


def test_a_silo_that_would_keep_back_everything_is_asked_for_nothing(session):
    cheat = Cheat(VIEWS)
    result = session(cheat).search(any_query(0), k=K)
    assert cheat.asked == []
    assert result.silos[0].withheld is None


def test_it_is_told_which_slots_are_wanted_and_one_bit_of_each(session):
    cheat = Cheat(7)
    asking = session(cheat)
    asking.search(any_query(0), k=20)
    (request,) = cheat.asked
    similarity = asking._asking.open(list(cheat.blocks), VIEWS)
    ranked = np.argsort(-similarity, kind="stable")
    assert request.slots == tuple(sorted(ranked[: 7 + 36]))
    assert request.alike == tuple(slot in ranked[:7] for slot in request.slots)
    assert set(without_names(request)) == {
        "version", "kind", "asker", "silo", "purpose", "user", "budget_ms", "slots", "alike"
    }  # fmt: skip


@pytest.mark.parametrize("changed", [{"indexed": VIEWS - 1}, {"indexed_views": VIEWS + 1}])
def test_an_index_that_changes_its_size_within_a_generation_is_not_believed(session, changed):
    cheat = Cheat()
    asking = session(cheat)
    asking.search(any_query(0))
    cheat.fields |= changed
    assert [report.state for report in asking.search(any_query(0)).silos] == [SiloState.INVALID]
    assert len(cheat.asked) == 1
    cheat.fields |= {"generation": "2"}
    asking.search(any_query(0))
    assert len(cheat.asked) == 2
