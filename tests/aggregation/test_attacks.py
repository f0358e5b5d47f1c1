"""What a server learns of one silo's update, alone and together with silos: with masks and encryption nothing.

One attack, `recover`, uses everything that the server and its accomplices have. It is run against plain updates, against
the shared key of NVFlare's own homomorphic encryption, against our protocol with a part taken out, where it must succeed,
and against our protocol, where it must fail.
"""

import gc
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import product

import msgpack
import numpy as np
import pytest
import tenseal

from silo_app.aggregation import exchange, masked_round, protocol, ring, wire
from silo_app.aggregation.bundle import PAIR, SELF, private_key
from silo_app.aggregation.cipher import SECRET_BYTES, Cipher
from silo_app.aggregation.codec import FieldPlan
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.shares import join_shares
from silo_app.aggregation.sums import RoundSum
from silo_app.aggregation.survivors import sign_survivors
from silo_app.aggregation.unmasking import pair_key, self_key
from silo_app.errors import RoundRefused, SurvivorsDisputed

TARGET = "silo-01"
RECOVERED, NOTHING = 0.99, 0.4  # 142 values correlate by chance with a deviation of 0.08


@dataclass
class Seen:
    """What the server and the silos that collude with it have of one round."""

    messages: dict[str, bytes]
    accomplices: dict = field(default_factory=dict)
    """Sessions of the silos that collude, with all that they know."""
    reveals: list[bytes] = field(default_factory=list)
    stock_key: bytes = b""
    """The context that NVFlare's provisioner puts into every silo's kit."""


def recover(seen, target):
    """Return the best attempts at `target`'s update from its message, each float64 (P,), up to a factor."""
    message = seen.messages[target]
    if seen.stock_key:
        return [np.array(tenseal.ckks_vector_from(tenseal.context_from(seen.stock_key), message).decrypt())]
    header, body = wire.split(message)
    if header.encryption == "none":
        return [np.frombuffer(body[: 4 * header.size].tobytes(), "<f4").astype(np.float64)]
    plan = FieldPlan(header.bits)
    blocks = 1 + plan.blocks(header.size)
    words = ring.from_wire(body[: ring.wire_bytes(blocks)])
    seeds = body[ring.wire_bytes(blocks) :].reshape(1, blocks, ring.SEED_BYTES)
    ciphers = [one._exchange.require_cipher() for one in seen.accomplices.values()] or [Cipher(bytes(SECRET_BYTES))]
    slots = [list(ciphers[0].decrypt(words, seeds))]
    slots += [list((words.astype(np.float64) * ring.SLOT_MODULUS / ring.MODULUS).astype(np.uint64))]
    attempts = []
    for rows in slots:
        for masks in (Masks((), ()), known_masks(seen, target, header.round_number)):
            for row in (unmasked := [row.copy() for row in rows]):
                masks.apply(row)
            values = np.concatenate([plan.unpack(row) for row in unmasked[1:]])
            attempts.append(values[: header.size].astype(np.float64))
    return attempts


def known_masks(seen, target, number):
    """Return what takes off all masks of `target` that follow from what was revealed and what accomplices hold."""
    plus, minus = [], []
    for session in list(seen.accomplices.values())[:1]:
        own = session._rounds[number]
        place, bundles = own.place, own.bundles
        if seed := secret_of(seen, target, SELF, number):
            minus.append(self_key(place, target, seed))
        pair = secret_of(seen, target, PAIR, number)
        for other in bundles.keys() - {target}:
            theirs = seen.accomplices[other]._rounds[number]._secrets.pair_seed if other in seen.accomplices else None
            theirs = theirs or secret_of(seen, other, PAIR, number)
            if theirs or pair:
                private, public = (
                    (private_key(theirs), bundles[target].public) if theirs else (private_key(pair), bundles[other].public)
                )
                key = pair_key(place, private, public, (target, other))
                (minus if target < other else plus).append(key)
    return Masks(plus, minus)


def secret_of(seen, silo, kind, number):
    """Return a secret of `silo`: revealed by itself, or joined from shares that were revealed or accomplices hold."""
    rounds = next(iter(seen.accomplices.values()))._rounds[number]
    bundle, shares = rounds.bundles[silo], {}
    for signed in seen.reveals:
        reveal = msgpack.unpackb(msgpack.unpackb(signed)["payload"])
        if kind == SELF and reveal["silo"] == silo and reveal["seed"]:
            return reveal["seed"]
        if (kind == SELF) == (silo in reveal["survivors"]) and silo in reveal["shares"]:
            shares[rounds.place.members.position(reveal["silo"])] = reveal["shares"][silo]
    for name, session in seen.accomplices.items():
        held = session._rounds[number]._shares.get(silo)
        if held:
            shares[rounds.place.members.position(name)] = held[kind]
    return join_shares(shares, bundle.threshold) if len(shares) >= bundle.threshold else None


def likeness(seen, update, target=TARGET):
    """Return how much the best attempt tells of `update`: the magnitude of its correlation."""
    return max(abs(np.corrcoef(attempt, update)[0, 1]) for attempt in recover(seen, target))


def seen_round(federation, accomplices=()):
    """Run a whole round of updates; return what was seen, and the target's update."""
    federation.begin(0)
    updates = federation.updates()
    messages = {name: federation.encrypt(0, name, update).tobytes() for name, update in updates.items()}
    reveals = federation.reveal(0, tuple(messages))
    allies = {name: federation.sessions[name] for name in accomplices}
    return Seen(messages, allies, list(reveals.values())), updates[TARGET]


def all_but_two(federation):
    """Return all silos but the target and one more."""
    return tuple(name for name in federation.sessions if name not in {TARGET, "silo-00"})


# --- where the attack succeeds ---


def test_the_attack_succeeds_against_plain_updates(make):
    assert likeness(*seen_round(make(encryption="none").exchange())) > RECOVERED


def test_the_attack_succeeds_against_the_shared_key_of_stock_encryption():
    """NVFlare's HE: one CKKS context with its secret key, the same file in the startup kit of every silo."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    update = np.random.default_rng(0).normal(0, 1e-3, 142)
    messages = {TARGET: tenseal.ckks_vector(context, update.tolist()).serialize()}
    kit_of_another_silo = context.serialize(save_secret_key=True)
    assert likeness(Seen(messages, stock_key=kit_of_another_silo), update) > RECOVERED


def test_the_attack_succeeds_against_a_shared_key_without_masks(make, monkeypatch):
    monkeypatch.setattr(masked_round.MaskedRound, "masks", lambda _: Masks((), ()))
    assert likeness(*seen_round(make().exchange(), ["silo-00"])) > RECOVERED


def test_the_attack_succeeds_when_all_others_collude(make):
    """Nothing can help against that: the sum less what the others sent is the update."""
    federation = make((1,) * 4).exchange()
    others = federation.sessions.keys() - {TARGET}
    assert likeness(*seen_round(federation, others)) > RECOVERED


# --- where it fails ---


def test_the_server_alone_learns_nothing(make):
    assert likeness(*seen_round(make().exchange())) < NOTHING


@pytest.mark.parametrize("silos", [3, 4])
def test_the_server_with_one_silo_learns_nothing(make, silos):
    assert likeness(*seen_round(make((1,) * silos).exchange(), ["silo-00"])) < NOTHING


@pytest.mark.parametrize("silos", [4, 5, 8])
def test_the_server_with_all_but_two_silos_learns_nothing(make, silos):
    """Shares of n - 2 silos must not be enough: that needs a quorum of n - 1 or more."""
    federation = make((1,) * silos, min_silos=silos - 1).exchange()
    assert likeness(*seen_round(federation, all_but_two(federation))) < NOTHING


def test_a_quorum_that_is_too_small_is_what_the_attack_needs(make):
    """With T = 3 of 5 silos, three that collude have the shares of everything: the page says that T - 1 may."""
    federation = make((1,) * 5, min_silos=2).exchange()
    assert federation.sessions[TARGET].threshold == 3
    assert likeness(*seen_round(federation, all_but_two(federation))) > RECOVERED


def test_a_message_that_came_too_late_stays_closed(make):
    """Its pairwise masks are revealed to open the others' sum; its self mask never is."""
    federation = make((1,) * 4).exchange()
    federation.begin(0)
    updates = federation.updates()
    messages = {name: federation.encrypt(0, name, update).tobytes() for name, update in updates.items()}
    reveals = federation.reveal(0, [name for name in messages if name != TARGET])
    seen = Seen(messages, {"silo-00": federation.sessions["silo-00"]}, list(reveals.values()))
    assert secret_of(seen, TARGET, PAIR, 0) is not None
    assert likeness(seen, updates[TARGET]) < NOTHING


def split_round(federation, told_without, accomplice):
    """Let the server tell some silos that all arrived, others that the target did not; return what it then has."""
    federation.begin(0)
    updates = federation.updates()
    messages = {name: federation.encrypt(0, name, update).tobytes() for name, update in updates.items()}
    both = tuple(messages), tuple(name for name in messages if name != TARGET)
    seen = Seen(messages, {accomplice: federation.sessions[accomplice]})
    groups = [
        [name for name in messages if name != accomplice and (name in told_without) is without] for without in (False, True)
    ]
    for survivors, group in zip(both, groups, strict=True):
        signatures = {name: federation.sessions[name].sign_survivors(0, survivors) for name in group}
        session = federation.sessions[accomplice]
        signatures[accomplice] = sign_survivors(session._rounds[0].place, survivors, session._identity)
        for name in group:
            try:
                seen.reveals.append(federation.sessions[name].reveal(0, signatures))
            except RoundRefused:
                continue
    return seen, updates[TARGET]


OTHERS = ("silo-02", "silo-03", "silo-04")
WAYS = [tuple(name for name, told in zip(OTHERS, way, strict=True) if told) for way in product((False, True), repeat=3)]


@pytest.mark.parametrize("told_without", WAYS, ids=str)
def test_two_survivor_sets_and_an_accomplice_learn_nothing(make, told_without):
    federation = make((1,) * 5, min_silos=3).exchange()
    assert likeness(*split_round(federation, told_without, "silo-00")) < NOTHING


def test_a_quorum_of_two_does_not_withstand_a_lying_server_with_an_accomplice(make):
    """The page says so: c = k - 2 silos may collude with a server that lies, and here that is none."""
    federation = make((1,) * 3, min_silos=2).exchange()
    assert likeness(*split_round(federation, ("silo-02",), "silo-00")) > RECOVERED


def test_two_survivor_sets_would_win_below_the_threshold(make, monkeypatch):
    monkeypatch.setattr(protocol, "threshold", lambda *_: 2)
    federation = make((1,) * 5, min_silos=3).exchange()
    assert likeness(*split_round(federation, ("silo-02",), "silo-00")) > RECOVERED


def test_a_silo_that_sees_another_set_signed_reveals_nothing_and_names_both(make):
    federation = make((1,) * 4).exchange()
    federation.begin(0)
    everyone = tuple(federation.sessions)
    signatures = {name: federation.sessions[name].sign_survivors(0, everyone) for name in everyone[:3]}
    signatures[everyone[3]] = federation.sessions[everyone[3]].sign_survivors(0, everyone[1:])
    for name in everyone:
        with pytest.raises(SurvivorsDisputed, match="silo-00, silo-01, silo-02, silo-03"):
            federation.sessions[name].reveal(0, signatures)
    with pytest.raises(RoundRefused, match="signed before that"):
        federation.sessions["silo-00"].sign_survivors(0, everyone[1:])


# --- the key and the server ---


def test_the_servers_sum_without_its_key_is_noise(make):
    federation = make().exchange()
    updates = federation.updates()
    message, *_ = federation.sum(0, updates)
    header, body = wire.split(message)
    rows = ring.from_wire(body[: ring.wire_bytes(1 + FieldPlan(header.bits).blocks(header.size))])
    slots = (rows.astype(np.float64) * ring.SLOT_MODULUS / ring.MODULUS).astype(np.uint64)
    read = FieldPlan(header.bits).unpack(slots[1])[: header.size]
    assert abs(np.corrcoef(read, federation.mean(updates))[0, 1]) < NOTHING


def test_the_key_is_in_nothing_that_the_server_sees(make, monkeypatch):
    secret = np.random.default_rng(0).bytes(SECRET_BYTES)
    monkeypatch.setattr(exchange, "new_secret", lambda: secret)
    federation = make().ready()
    for number in (1, 2):
        federation.round(number, federation.updates(number))
    seen = b"".join(federation.messages)
    assert len(seen) > 2 * len(federation.sessions) * 120_000
    for part in (secret, secret[:16], secret[-16:], secret.hex().encode()):
        assert part not in seen


def test_the_server_sees_no_sample_counts(make):
    """Messages of silos with few and with many images look alike but for what is random."""
    federations = [make((count, 7, 7)).exchange() for count in (3, 10**9)]
    for federation in federations:
        federation.begin(0)
    few, many = (federation.sessions["silo-00"].encrypt_statistics(0) for federation in federations)
    headers = [{**msgpack.unpackb(wire.split(message)[0].packed())} for message in (few, many)]
    random = {"key", "masks", "body"}
    assert {key: value for key, value in headers[0].items() if key not in random} == {
        key: value for key, value in headers[1].items() if key not in random
    }
    assert len(few) == len(many)


def test_the_servers_sum_holds_no_key(make):
    federation = make().exchange()
    federation.begin(0)
    total = RoundSum("job-1", 0)
    for name, update in federation.updates().items():
        total.add(federation.encrypt(0, name, update))
    reachable, waiting = set(), [total]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in reachable and not isinstance(thing, type):
            reachable.add(id(thing))
            waiting += gc.get_referents(thing)
            assert not isinstance(thing, Cipher)
    pickle.dumps(total)  # a cipher anywhere in it would refuse


def test_the_server_needs_no_cryptographic_library():
    code = "import sys, silo_app.aggregation.sums; print({'tenseal', 'cryptography', 'Crypto'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"


def test_the_server_vets_messages_without_opening_libraries():
    """It verifies signatures, so it has the certificates' library; it has none that decrypts sums or joins shares."""
    code = "import sys, silo_app.aggregation.vetting; print({'tenseal', 'Crypto'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"
