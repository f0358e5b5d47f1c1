"""The key exchange: silos that belong together get one key, and nobody else gets in between."""

from dataclasses import replace

import msgpack
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from silo_app.aggregation import keys
from silo_app.aggregation.layout import Layout, digest_of
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.settings import AggregationSettings
from silo_app.errors import KeyRefused, MessageInvalid, ProtocolError, RoundRefused, SignatureInvalid, UpdateRefused

ONE, TWO = "silo-01", "silo-02"


def announcements(federation):
    return {name: session.announce() for name, session in federation.sessions.items()}


def session_like(federation, name, *, identity=None, **changes):
    """Return another session of the silo `name`, differing in `changes`."""
    like = federation.sessions[name]._exchange
    values = {
        "job": like.job,
        "identity": identity or like.identity,
        "layout": like.layout,
        "initial": like.initial,
        "samples": federation.sessions[name].samples,
        "settings": like.settings,
        **changes,
    }
    return SiloSession(values.pop("job"), values.pop("identity"), values.pop("layout"), **values)


@pytest.mark.parametrize("silos", [2, 3, 8])
def test_all_silos_end_with_one_key_that_the_first_one_made(make, silos):
    federation = make(range(1, silos + 1)).exchange()
    ids = {session._exchange.require_cipher().key_id for session in federation.sessions.values()}
    assert len(ids) == 1
    assert len(federation.messages) == silos + silos - 1


def test_keys_are_of_one_job(make):
    ids = {make().exchange().sessions[ONE]._exchange.require_cipher().key_id for _ in range(2)}
    assert len(ids) == 2


def test_without_encryption_there_is_no_key(make):
    federation = make(encryption="none")
    wrapped = [session.receive_roster(announcements(federation)) for session in federation.sessions.values()]
    assert wrapped == [{}, {}, {}]
    with pytest.raises(KeyRefused, match="expects no key"):
        federation.sessions[ONE].receive_key(b"")


def test_a_session_says_what_it_lacks(make):
    federation = make()
    session = federation.sessions[ONE]
    update = np.zeros(federation.layout.size, np.float32)
    with pytest.raises(KeyRefused, match="does not know the silos of the job"):
        session.share_secrets(0)
    for one in federation.sessions.values():
        one.receive_roster(announcements(federation))
    with pytest.raises(RoundRefused, match="has not begun it"):
        session.encrypt_update(0, update)
    federation.begin(0)
    with pytest.raises(KeyRefused, match="does not have the job's key") as caught:
        session.encrypt_update(0, update)
    assert "Submit the job again" in caught.value.remedy


def test_a_silo_that_was_started_again_is_told_so(make):
    federation = make()
    relayed = announcements(federation)
    with pytest.raises(KeyRefused, match="does not have this process's announcement"):
        session_like(federation, ONE).receive_roster(relayed)


def test_the_silos_of_a_job_are_fixed_once(make):
    federation = make().exchange()
    with pytest.raises(KeyRefused, match="fixed before"):
        federation.sessions[ONE].receive_roster(announcements(federation))


def test_announcements_do_not_say_how_many_images_a_silo_has(make):
    few, many = (make((count, 5)).sessions["silo-00"]._exchange._announcement() for count in (3, 10**9))
    assert replace(few, public=b"") == replace(many, public=b"")


def test_a_silo_of_no_images_does_not_join(make):
    with pytest.raises(UpdateRefused, match="no images"):
        make((3, 0))


# --- announcements that are refused ---


def other_root(federation, make):
    from_elsewhere = make()  # a federation of its own would share the root; sign under a foreign one instead
    stranger = type(federation.root)("elsewhere").identity(ONE)
    return session_like(from_elsewhere, ONE, identity=stranger).announce()


def expired(federation, make):
    return session_like(federation, ONE, identity=federation.root.identity(ONE, days=(-9, -1))).announce()


def administrator(federation, make):
    return session_like(federation, ONE, identity=federation.root.identity(ONE, role="lead")).announce()


def of_another_silo(federation, make):
    return federation.sessions[TWO].announce()


def of_another_purpose(federation, make):
    payload = msgpack.packb({"job": "job-1"})
    return federation.sessions[ONE]._exchange.identity.sign(payload, context=b"siloscope/query/1")


def of_junk(federation, make):
    return federation.sessions[ONE]._exchange.identity.sign(b"junk", context=keys.ANNOUNCEMENT)


def like(**changes):
    return lambda federation, make: session_like(federation, ONE, **changes).announce()


def announced(**changes):
    def announce(federation, make):
        exchange = federation.sessions[ONE]._exchange
        return keys.announce(replace(exchange._announcement(), **changes), exchange.identity)

    return announce


def public_of_two(federation, make):
    return announced(public=federation.sessions[TWO]._exchange._announcement().public)(federation, make)


ANNOUNCED = {
    "foreign root": (other_root, SignatureInvalid, "'silo-01' was not issued by this federation's root"),
    "expired": (expired, SignatureInvalid, "expired"),
    "administrator": (administrator, KeyRefused, "silo-01 is of a lead, not of a silo"),
    "another silo": (of_another_silo, SignatureInvalid, "signed by silo-02 and speaks of silo-02"),
    "another name": (announced(silo=TWO), SignatureInvalid, "signed by silo-01 and speaks of silo-02"),
    "another purpose": (of_another_purpose, SignatureInvalid, "not of this content"),
    "junk inside": (of_junk, KeyRefused, "announcement of silo-01 is damaged"),
    "junk": (lambda *_: b"junk", MessageInvalid, "not of this version, or damaged"),
    "another job": (like(job="job-2"), KeyRefused, "of another job than job-1"),
    "another network": (like(layout=Layout(("w",), ((142,),))), UpdateRefused, "other tensors"),
    "other weights": (like(initial=digest_of(np.ones(142, np.float32))), UpdateRefused, "other initial weights"),
    "other settings": (like(settings=AggregationSettings(bits=12)), UpdateRefused, "other aggregation settings"),
    "another history": (announced(basis=bytes(32)), UpdateRefused, "its rounds before round 0 are not those of silo-00"),
    "short key": (announced(public=bytes(31)), KeyRefused, "X25519 key is of another silo, or none"),
    "another's key": (public_of_two, KeyRefused, "X25519 key is of another silo, or none"),
}


@pytest.mark.parametrize("case", ANNOUNCED)
def test_an_announcement_that_cannot_be_believed_stops_the_exchange(make, case):
    change, error, problem = ANNOUNCED[case]
    federation = make()
    relayed = announcements(federation) | {ONE: change(federation, make)}
    session = federation.sessions["silo-00"]
    with pytest.raises(error) as caught:
        session.receive_roster(relayed)
    assert problem in str(caught.value)
    assert session._exchange.cipher is None
    session.receive_roster(announcements(federation))  # the refusal changed nothing


def test_the_server_cannot_pass_for_a_silo(make):
    federation = make((5,))
    server = session_like(federation, "silo-00", identity=federation.root.identity("server"))
    with pytest.raises(KeyRefused, match="server is of a server, not of a silo"):
        federation.sessions["silo-00"].receive_roster(announcements(federation) | {"server": server.announce()})


def test_too_few_silos_are_refused(make):
    federation = make((5,))
    with pytest.raises(KeyRefused, match="1 silos are in the job; this silo takes part with 2 to 128"):
        federation.sessions["silo-00"].receive_roster(announcements(federation))


def test_a_key_of_no_order_is_refused(make):
    federation = make((1, 1))
    weak = announced(public=bytes(32))(federation, make)
    relayed = announcements(federation) | {ONE: weak}
    with pytest.raises(KeyRefused, match="X25519"):
        federation.sessions["silo-00"].receive_roster(relayed)


# --- wrapped keys that are refused ---


@pytest.fixture
def waiting(make):
    """Return a federation whose silos wait for their key, and the wrapped keys."""
    federation = make()
    relayed = announcements(federation)
    wrapped = {}
    for session in federation.sessions.values():
        wrapped |= session.receive_roster(relayed)
    return federation, wrapped


def rewrapped(federation, receiver=ONE, signer="silo-00", **changes):
    """Return a wrapped key whose content was changed and signed again by `signer`."""
    exchange = federation.sessions[signer]._exchange
    signed = keys.wrap(
        bytes(64),
        bytes(16),
        roster=exchange.require_roster(),
        receiver=receiver,
        private=exchange.private,
        own=exchange.identity,
    )
    payload = exchange.identity.trust.verify(signed, context=keys.KEY_WRAP).payload
    return exchange.identity.sign(msgpack.packb(msgpack.unpackb(payload) | changes), context=keys.KEY_WRAP)


WRAPPED = {
    "for another": (lambda federation, wrapped: wrapped[TWO], KeyRefused, "it is for silo-02"),
    "by another": (lambda federation, _: rewrapped(federation, signer=TWO), KeyRefused, "silo-00 makes the key"),
    "in another's name": (
        lambda federation, _: rewrapped(federation, signer=TWO, sender="silo-00"),
        KeyRefused,
        "it is signed by silo-02 for silo-00; silo-00 makes the key",
    ),
    "of another job": (lambda federation, _: rewrapped(federation, job="job-2"), KeyRefused, "of job 'job-2'"),
    "of other silos": (lambda federation, _: rewrapped(federation, roster=bytes(32)), KeyRefused, "another list of"),
    "resealed": (lambda federation, _: rewrapped(federation, sealed=bytes(80)), KeyRefused, "does not open"),
    "short nonce": (lambda federation, _: rewrapped(federation, nonce=b""), KeyRefused, "does not open"),
    "bound otherwise": (lambda federation, _: rewrapped(federation, key=bytes(15)), KeyRefused, "does not open"),
    "another key's id": (
        lambda federation, _: rewrapped(federation),
        KeyRefused,
        "another one here than",
    ),
    "an announcement": (lambda federation, _: federation.sessions["silo-00"].announce(), SignatureInvalid, "content"),
    "junk": (lambda *_: b"\x00", MessageInvalid, "damaged"),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_a_key_that_was_not_meant_is_refused(waiting, case):
    federation, wrapped = waiting
    change, error, problem = WRAPPED[case]
    session = federation.sessions[ONE]
    with pytest.raises(error) as caught:
        session.receive_key(change(federation, wrapped))
    assert problem in str(caught.value)
    session.receive_key(wrapped[ONE])  # the refusal changed nothing
    with pytest.raises(KeyRefused, match="expects no key now"):
        session.receive_key(wrapped[ONE])


def test_a_server_in_the_middle_is_noticed(make):
    """A server that swaps a silo's X25519 key for its own cannot sign for that silo."""
    federation = make()
    genuine = federation.sessions[ONE]._exchange._announcement()
    own = X25519PrivateKey.generate().public_key().public_bytes_raw()
    forged = keys.announce(replace(genuine, public=own), federation.root.identity("server"))
    for session in (federation.sessions["silo-00"], federation.sessions[TWO]):
        with pytest.raises(ProtocolError):
            session.receive_roster(announcements(federation) | {ONE: forged})


def test_a_server_that_shows_two_lists_is_noticed(make):
    federation = make()
    full = announcements(federation)
    wrapped = federation.sessions["silo-00"].receive_roster(full)
    federation.sessions[ONE].receive_roster({name: full[name] for name in ("silo-00", ONE)})
    with pytest.raises(KeyRefused, match="its sender was shown another list of silos"):
        federation.sessions[ONE].receive_key(wrapped[ONE])
