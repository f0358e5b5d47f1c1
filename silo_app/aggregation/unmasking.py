"""Which masks are left in a sum, from what the silos revealed: the same for every silo, also for one that was away."""

from collections.abc import Iterator, Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from silo_app.aggregation.masking import Masks
from silo_app.aggregation.place import Place
from silo_app.aggregation.shares import PAIR, SELF, Bundle, join_shares, private_key
from silo_app.aggregation.survivors import Reveal, read_reveal
from silo_app.errors import RoundRefused

__all__ = ["pair_key", "remaining", "self_key"]


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
    modulus: int,
) -> Masks:
    """Return what takes the masks off the sum of `survivors`.

    `bundles` are those of the round's participants. Raises `RoundRefused`, naming its author, for a share that is not the
    one dealt, and when too few silos revealed.
    """
    reveals = {name: read_reveal(name, signed, place, survivors) for name, signed in sorted(revealed.items())}
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
    return Masks(plus, minus, modulus)


def _seed(place: Place, bundle: Bundle, reveals: Mapping[str, Reveal]) -> bytes:
    """Return the seed of a survivor's self mask: from itself, or, if it fell silent since, from the others' shares."""
    if bundle.silo not in reveals:
        return _secret(place, bundle, SELF, reveals)
    seed = reveals[bundle.silo].seed
    if not bundle.matches(place, SELF, seed):
        raise _refused(place, bundle.silo, "it revealed another seed than it committed to")
    return seed


def _secret(place: Place, bundle: Bundle, kind: str, reveals: Mapping[str, Reveal]) -> bytes:
    """Join the shares of one secret of one silo."""
    shares = {}
    for author, share in _shares(bundle, reveals):
        if not bundle.expects(place, kind, author, share):
            raise _refused(place, author, f"its share of {bundle.silo}'s secret is not the one that it was dealt")
        shares[place.members.position(author)] = share
    if len(shares) < bundle.threshold:
        raise _refused(
            place,
            bundle.silo,
            f"{len(shares)} of the {bundle.threshold} shares are there that take off this silo's mask",
        )
    secret = join_shares(shares, bundle.threshold)
    if not bundle.matches(place, kind, secret):
        raise _refused(place, bundle.silo, "the shares that it dealt do not make its secret")
    return secret


def _shares(bundle: Bundle, reveals: Mapping[str, Reveal]) -> Iterator[tuple[str, bytes]]:
    for author, reveal in reveals.items():
        if author != bundle.silo and bundle.silo in reveal.shares:
            yield author, reveal.shares[bundle.silo]


def _refused(place: Place, silo: str, problem: str) -> RoundRefused:
    return RoundRefused(
        f"the sum's masks cannot be taken off: {problem}",
        where=f"{silo}, {place}",
        remedy="The round is void unless the server sends what is missing; the job goes on with the next one.",
    )
