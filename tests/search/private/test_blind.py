"""What is scored blindly is the exact integer product, for any dimension and any number of vectors."""

import secrets

import msgpack
import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from silo_app.errors import EncoderMismatch, MessageInvalid
from silo_app.keystream import KEY_BYTES
from silo_app.privacy.uniform import UniformNumbers
from silo_app.search.private import scheme
from silo_app.search.private.asker import Asking
from silo_app.search.private.blind import PreparedGallery, Rotations, _prepared, prepare, score
from silo_app.search.private.order import order_of

SEED = 3


def unit(rng, count, dimension):
    vectors = rng.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def scored(asking, vectors, query, noise=0):
    asked = asking.ask(query)
    blocks = score(asked.ciphertext, Rotations.of(asking.keys), prepare(vectors, SEED), noise=noise)
    return asking.open(blocks, len(vectors))


def expected(vectors, query):
    """The definition: both rounded, multiplied as integers, scaled back."""
    products = scheme.quantised(vectors) @ scheme.quantised(query[None])[0]
    return (products / scheme.SCALE**2)[order_of(len(vectors), SEED)]


@pytest.mark.parametrize(
    ("count", "dimension"),
    [(1, 2), (3, 7), (40, 16), (4096, 8), (4097, 8), (8192, 8), (8193, 8), (16385, 4), (300, 256), (36864, 256)],
)
def test_scores_are_the_exact_products(count, dimension):
    rng = np.random.default_rng(count)
    vectors, query = unit(rng, count, dimension), unit(rng, 1, dimension)[0]
    assert np.allclose(scored(Asking.begin(dimension), vectors, query), np.clip(expected(vectors, query), -1, 1), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 200), dimension=st.integers(2, 64), seed=st.integers(0, 2**32))
def test_scores_are_the_exact_products_of_any_vectors(count, dimension, seed):
    rng = np.random.default_rng(seed)
    vectors, query = unit(rng, count, dimension), unit(rng, 1, dimension)[0]
    assert np.allclose(scored(Asking.begin(dimension), vectors, query), np.clip(expected(vectors, query), -1, 1), atol=1e-12)


@pytest.mark.parametrize("count", [4096, 36864])
def test_what_is_computed_leaves_a_wide_margin_before_it_would_be_noise(count):
    """Either number of rotations. The margin is in bits; at 0 the scores would be wrong."""
    rng = np.random.default_rng(1)
    vectors, asking = unit(rng, count, 256), Asking.begin(256)
    rotations, gallery = Rotations.of(asking.keys), prepare(vectors, SEED)
    blocks = score(asking.ask(vectors[0]).ciphertext, rotations, gallery, noise=0.01)
    decryptor = seal.Decryptor(scheme.context(), asking._key)
    left = [decryptor.invariant_noise_budget(scheme.loaded(seal.Ciphertext(), block, "answer")) for block in blocks]
    assert min(left) >= 10


def test_the_largest_scores_there_can_be_do_not_overflow():
    rng = np.random.default_rng(9)
    asking = Asking.begin(256)
    for vectors in (np.full((1, 256), 1 / 16, np.float32), np.eye(1, 256, dtype=np.float32), unit(rng, 1, 256)):
        assert scored(asking, vectors, vectors[0], noise=0.01)[0] == pytest.approx(1, abs=0.015)
        assert scored(asking, -vectors, vectors[0], noise=0.01)[0] == pytest.approx(-1, abs=0.015)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine 256 numbers take long to draw
@given(st.lists(st.floats(-1, 1, width=32), min_size=256, max_size=256).filter(lambda v: max(map(abs, v)) > 1e-3))
def test_rounded_unit_vectors_never_reach_half_the_modulus(values):
    vector = np.array(values, np.float64)
    integers = scheme.quantised((vector / np.linalg.norm(vector)).astype(np.float32)[None])[0]
    assert integers @ integers + 0.01 * scheme.SCALE**2 < scheme.modulus() / 2


def test_the_ten_nearest_are_those_of_plain_vectors():
    rng = np.random.default_rng(0)
    vectors = unit(rng, 2000, 64)
    asking = Asking.begin(64)
    order = order_of(2000, SEED)
    found = 0
    for query in unit(rng, 5, 64):
        private = order[np.argsort(-scored(asking, vectors, query))[:10]]
        found += len(np.intersect1d(private, np.argsort(-(vectors @ query))[:10]))
    assert found >= 49


def test_noise_moves_scores_by_no_more_than_it_says():
    rng = np.random.default_rng(1)
    vectors, query = unit(rng, 100, 16), unit(rng, 1, 16)[0]
    moved = np.abs(scored(Asking.begin(16), vectors, query, noise=0.01) - expected(vectors, query))
    assert 0.005 < moved.max() < 0.01 + 1e-6


def opened(asking, block):
    """Return what an asker can see of a block: every slot's number, int64 (2, ROW)."""
    plain = seal.Plaintext()
    seal.Decryptor(scheme.context(), asking._key).decrypt(scheme.loaded(seal.Ciphertext(), block, "answer"), plain)
    return np.array(seal.BatchEncoder(scheme.context()).decode_uint64(plain), np.int64).reshape(2, scheme.ROW)


def is_uniform(numbers):
    return stats.kstest(numbers.reshape(-1) / scheme.modulus(), "uniform").pvalue > 1e-4


class TestWhatIsAdded:
    """Noise and masks: a cipher's, and in no slot can an asker see what they are."""

    def test_the_halves_are_masked_by_the_secret_stream_and_nothing_else(self, monkeypatch):
        """Given the key of the stream, every number of an answer is known; it comes from the system, once an answer."""
        key = b"k" * KEY_BYTES
        drawn = []
        monkeypatch.setattr(secrets, "token_bytes", lambda count: drawn.append(count) or key)
        monkeypatch.setattr(np.random, "Generator", None)
        asking, vectors = Asking.begin(16), unit(np.random.RandomState(1), 100, 16)
        gallery = PreparedGallery((_prepared(scheme.quantised(vectors), 8),), 16, 8)
        (block,) = score(asking.ask(vectors[0]).ciphertext, Rotations.of(asking.keys), gallery, noise=0.0002)
        assert drawn == [KEY_BYTES]
        stream = UniformNumbers(key)
        noise, mask = stream.below(2 * 20_000 + 1, scheme.ROW) - 20_000, stream.below(scheme.modulus(), scheme.ROW)
        empty = stream.below(scheme.modulus(), 2 * (scheme.ROW - 100))
        query, integers = scheme.quantised(vectors[:1])[0], scheme.quantised(vectors)
        own = (np.arange(100)[:, None] + np.arange(8)) % 16  # the coordinates of each slot's first half
        first = (np.take_along_axis(integers, own, axis=1) * query[own]).sum(axis=1)
        seen = opened(asking, block)
        assert np.array_equal(seen[0, :100], (first + noise[:100] + mask[:100]) % scheme.modulus())
        second = integers @ query - first
        assert np.array_equal(seen[1, :100], (second - mask[:100]) % scheme.modulus())
        left = np.stack([query[(np.arange(8) + start) % 16].sum() for start in range(16)])  # of the query, in empty slots
        hidden = (seen[:, 100:].reshape(-1) - empty) % scheme.modulus()
        assert np.isin(hidden, left % scheme.modulus()).all()

    def test_no_two_answers_share_a_mask(self):
        asking, vectors = Asking.begin(16), unit(np.random.default_rng(1), 4096, 16)
        rotations, gallery = Rotations.of(asking.keys), prepare(vectors, SEED)
        query = asking.ask(vectors[0]).ciphertext
        one, other = (opened(asking, score(query, rotations, gallery)[0]) for _ in range(2))
        assert is_uniform(one[0])
        assert is_uniform((one[0] - other[0]) % scheme.modulus())
        assert np.array_equal(one.sum(axis=0) % scheme.modulus(), other.sum(axis=0) % scheme.modulus())

    @pytest.mark.parametrize("count", [100, 4096 + 100], ids=["in halves", "whole"])
    def test_empty_slots_say_nothing(self, count):
        """Without their own numbers they hold sums of the query: whoever knows it would see noise and masks."""
        asking, vectors = Asking.begin(16), unit(np.random.default_rng(1), count, 16)
        rotations, gallery = Rotations.of(asking.keys), prepare(vectors, SEED)
        query = asking.ask(vectors[0]).ciphertext
        one, other = (opened(asking, score(query, rotations, gallery, noise=0.0002)[0]) for _ in range(2))
        if count < scheme.ROW:
            assert is_uniform(one[:, count:])
            assert is_uniform(one[:, count:].sum(axis=0) % scheme.modulus())  # no mask that the rows share
            assert is_uniform((one - other)[:, count:] % scheme.modulus())
        else:
            assert is_uniform(one.reshape(-1)[count:])
            assert is_uniform((one - other).reshape(-1)[count:] % scheme.modulus())


def test_processes_share_the_blocks():
    rng = np.random.default_rng(2)
    vectors = unit(rng, 8192 * 2 + 10, 4)
    whole = prepare(vectors, SEED)
    parts = [prepare(vectors, SEED, share=share, shares=2) for share in range(2)]
    assert [len(part.blocks) for part in parts] == [2, 1]
    assert len(whole.blocks) == 3
    assert len({part.steps for part in parts}) == 1


def test_two_encryptions_of_one_query_share_nothing():
    asking = Asking.begin(16)
    query = unit(np.random.default_rng(3), 1, 16)[0]
    one, two = asking.ask(query).ciphertext, asking.ask(query).ciphertext
    same = sum(a == b for a, b in zip(one[200:], two[200:], strict=False)) / (len(one) - 200)
    assert same < 0.05  # random bytes agree in one of 256


def test_another_sessions_key_opens_nothing():
    vectors = unit(np.random.default_rng(4), 50, 16)
    asking, other = Asking.begin(16), Asking.begin(16)
    asked = asking.ask(vectors[0])
    blocks = score(asked.ciphertext, Rotations.of(asking.keys), prepare(vectors, SEED))
    with pytest.raises(MessageInvalid, match=r"noise|beyond"):
        other.open(blocks, 50)


def decrypted(asking, content):
    """Return the first period of what a query decrypts to, int64 (16,): the query itself, under its own key."""
    plain = seal.Plaintext()
    seal.Decryptor(scheme.context(), asking._key).decrypt(scheme.loaded(seal.Ciphertext(), content, "query"), plain)
    values = np.array(seal.BatchEncoder(scheme.context()).decode_uint64(plain), np.int64)[:16]
    return np.where(values > scheme.modulus() // 2, values - scheme.modulus(), values)


def test_a_query_is_encrypted_under_the_sessions_own_key():
    asking, other = Asking.begin(16), Asking.begin(16)
    query = unit(np.random.default_rng(5), 1, 16)[0]
    sent = asking.ask(query).ciphertext
    integers = scheme.quantised(query[None])[0]
    assert np.array_equal(decrypted(asking, sent), integers)
    assert np.sum(np.abs(decrypted(other, sent) - integers) < scheme.SCALE) <= 1  # of 16 random ones 0.001 are that near
    with pytest.raises(MessageInvalid):
        scheme.loaded(seal.Plaintext(), sent, "query")
    ciphertext = scheme.loaded(seal.Ciphertext(), sent, "query")
    assert ciphertext.size() == 2
    assert not ciphertext.is_transparent()  # whose second polynomial is zero, anyone reads


def test_neither_the_secret_key_nor_the_query_is_in_what_is_sent():
    asking = Asking.begin(16)
    query = unit(np.random.default_rng(5), 1, 16)[0]
    sent = msgpack.packb([asking.ask(query).ciphertext, asking.keys])
    for kind in ("<f2", "<f4", "<f8"):
        assert query.astype(kind).tobytes() not in sent
    with pytest.raises(MessageInvalid):
        scheme.loaded(seal.SecretKey(), asking.keys, "keys")
    assert "_key" not in repr(asking)


def test_an_embedding_that_is_too_long_is_refused():
    with pytest.raises(EncoderMismatch, match="512 numbers"):
        Asking.begin(512)


def broken(content):
    """Bytes that are no message of SEAL, by what is wrong with them."""
    bomb = content[:16] + b"\x28\xb5\x2f\xfd\x00\x58" + b"\x02\x00\x10a" * 200 + b"\x03\x00\x10a"
    sized = bomb[:8] + len(bomb).to_bytes(8, "little") + bomb[16:]
    return {
        "nothing": b"",
        "short": content[:10],
        "truncated": content[:-1],
        "longer": content + b"x",
        "another magic number": b"PK" + content[2:],
        "another packing": content[:5] + b"\x00" + content[6:],
        "a bomb": sized,
        "flipped": content[:300] + bytes([content[300] ^ 255]) + content[301:],
        "random": np.random.default_rng(0).bytes(len(content)),
    }


@pytest.mark.parametrize("what", [name for name in broken(b"\x5e" * 400) if name != "flipped"])
def test_what_is_no_query_is_refused(what):
    asking = Asking.begin(8)
    vectors = unit(np.random.default_rng(6), 5, 8)
    query = broken(asking.ask(vectors[0]).ciphertext)[what]
    with pytest.raises(MessageInvalid):
        score(query, Rotations.of(asking.keys), prepare(vectors, SEED))
    with pytest.raises(MessageInvalid):
        Rotations.of(broken(asking.keys)[what])


def test_keys_of_other_steps_are_refused():
    keys = seal.KeyGenerator(scheme.context()).create_galois_keys([scheme.galois_element(5)])
    with pytest.raises(MessageInvalid, match="other steps"):
        Rotations.of(scheme.saved(keys))


def test_keys_without_the_giant_step_are_refused_when_it_is_needed():
    vectors = unit(np.random.default_rng(7), 5, 256)
    made = seal.KeyGenerator(scheme.context()).create_galois_keys([scheme.galois_element(1)])
    keys = Rotations.of(scheme.saved(made))
    with pytest.raises(MessageInvalid):
        score(Asking.begin(256).ask(vectors[0]).ciphertext, keys, prepare(vectors, SEED))


@pytest.mark.parametrize(
    ("copies", "views", "problem"), [(0, 5, "0 blocks for 5"), (2, 5, "2 blocks"), (1, 9000, "for 9000 views")]
)
def test_an_answer_that_cannot_be_is_refused(copies, views, problem):
    asking = Asking.begin(8)
    vectors = unit(np.random.default_rng(8), 5, 8)
    blocks = score(asking.ask(vectors[0]).ciphertext, Rotations.of(asking.keys), prepare(vectors, SEED))
    with pytest.raises(MessageInvalid, match=problem):
        asking.open(blocks * copies, views)


def test_scores_that_no_unit_vectors_have_are_refused():
    asking = Asking.begin(8)
    vectors = unit(np.random.default_rng(8), 5, 8)
    blocks = score(asking.ask(vectors[0]).ciphertext, Rotations.of(asking.keys), prepare(1.1 * vectors, SEED))
    with pytest.raises(MessageInvalid, match="beyond those of unit vectors"):
        asking.open(blocks, 5)
