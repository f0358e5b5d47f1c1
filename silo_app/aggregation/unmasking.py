"""Which masks are left in a sum, from what the silos revealed: the same for every silo, also for one that was away."""

import logging
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from silo_app.aggregation.bundle import PAIR, SELF, Bundle, private_key
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.place import Place
from silo_app.aggregation.shares import join_shares
from silo_app.aggregation.survivors import Reveal, read_reveal
from silo_app.errors import ProtocolError, RoundRefused

__all__ = ["pair_key", "remaining", "self_key"]

LOG = logging.getLogger(__name__)


def self_key(place: Place, silo: str, seed: bytes) -> bytes:
    """Return the key of a self mask."""
    return place.key(seed, b"siloscope/self-mask/1", silo)


def pair_key(place: Place, private: X25519PrivateKey, public: bytes, silos: tuple[str, str]) -> bytes:
    """Return the key of the mask of two silos, whoever of them computes it."""
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return place.key(shared, b"siloscope/pair-mask/1", *sorted(silos))


def remaining(
    place: Place,
    bundles: Mapping[str, Bundle],
    survivors: tuple[str, ...],
    revealed: Mapping[str, bytes],
) -> Masks:
    """Return what takes the masks off the sum of `survivors`.

    `bundles` are those of the round's participants. What a silo revealed wrong is left out, and its author named in the log;
    raises `RoundRefused` if too little is left.
    """
    reveals = _believable(place, survivors, revealed)
    plus: list[bytes] = []
    minus: list[bytes] = []
    for silo in survivors:
        seed = _seed(place, bundles[silo], reveals)
        minus.append(self_key(place, silo, seed))
    for gone in sorted(bundles.keys() - set(survivors)):
        private = private_key(_secret(place, bundles[gone], PAIR, reveals))
        for silo in survivors:
            key = pair_key(place, private, bundles[silo].public, (gone, silo))
            # A silo adds the mask that it shares with a later one: take off what the survivor added.
            (minus if silo < gone else plus).append(key)
    return Masks(plus, minus)


def _believable(place: Place, survivors: tuple[str, ...], revealed: Mapping[str, bytes]) -> dict[str, Reveal]:
    """Return what was revealed for this round and these survivors, by silo."""
    reveals = {}
    for name, signed in sorted(revealed.items()):
        try:
            reveals[name] = read_reveal(name, signed, place, survivors)
        except ProtocolError as error:
            LOG.warning("%s: what came as revealed by %s is not used: %s", place, name, error.problem)
    return reveals


def _seed(place: Place, bundle: Bundle, reveals: Mapping[str, Reveal]) -> bytes:
    """Return the seed of a survivor's self mask: from itself, or, if it fell silent or lies, from the others' shares."""
    if bundle.silo in reveals:
        seed = reveals[bundle.silo].seed
        if bundle.matches(place, SELF, seed):
            return seed
        LOG.warning("%s: %s revealed another seed than it committed to", place, bundle.silo)
    return _secret(place, bundle, SELF, reveals)


def _secret(place: Place, bundle: Bundle, kind: str, reveals: Mapping[str, Reveal]) -> bytes:
    """Join the shares of one secret of one silo."""
    shares, liars = {}, []
    for author, reveal in reveals.items():
        if author == bundle.silo or bundle.silo not in reveal.shares:
            continue
        if bundle.expects(place, kind, author, reveal.shares[bundle.silo]):
            shares[place.members.position(author)] = reveal.shares[bundle.silo]
        else:
            LOG.warning("%s: %s revealed a wrong share of %s's secret", place, author, bundle.silo)
            liars.append(author)
    if len(shares) < bundle.threshold:
        wrong = f", those of {', '.join(liars)} are wrong" if liars else ""
        raise _refused(place, bundle.silo, f"{len(shares)} of the {bundle.threshold} shares are there{wrong}")
    secret = join_shares(shares, bundle.threshold)
    if not bundle.matches(place, kind, secret):
        raise _refused(place, bundle.silo, "the shares that it dealt do not make its secret")
    return secret


def _refused(place: Place, silo: str, problem: str) -> RoundRefused:
    return RoundRefused(
        f"this silo's masks cannot be taken off the sum: {problem}",
        where=f"{silo}, {place}",
        remedy="The round is void unless the server sends what is missing; the job goes on with the next one.",
    )
