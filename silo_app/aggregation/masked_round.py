"""One silo's masks in one round: deal secrets, mask, sign who arrived, reveal once. Knows nothing of what is summed."""

import logging
from collections.abc import Collection, Mapping
from hashlib import sha256

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from silo_app.aggregation.bundle import PAIR, SELF, Bundle, private_key, read_bundle
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.place import Place
from silo_app.aggregation.shares import Secrets, deal, open_share
from silo_app.aggregation.survivors import Reveal, agreed, sign_reveal, sign_survivors
from silo_app.aggregation.unmasking import pair_key, self_key
from silo_app.errors import KeyRefused, RoundRefused
from silo_app.identity import Identity

__all__ = ["MaskedRound", "digest_of_bundles", "read_bundles"]

LOG = logging.getLogger(__name__)
UNUSED = "Nothing was changed. If it repeats, tell the server's operator."


def digest_of_bundles(bundles: Mapping[str, bytes]) -> bytes:
    """Return what stands for exactly these signed bundles in a message's header."""
    return sha256(msgpack.packb([[name, sha256(bundles[name]).digest()] for name in sorted(bundles)])).digest()


def read_bundles(bundles: Mapping[str, bytes], place: Place) -> dict[str, Bundle]:
    """Verify all bundles. Raises what `read_bundle` does, naming the silo."""
    return {name: read_bundle(name, signed, place) for name, signed in sorted(bundles.items())}


class MaskedRound:
    """share -> begin -> masks -> sign -> reveal; every step that is asked for twice gives the same again, or refuses."""

    def __init__(self, place: Place, identity: Identity, private: X25519PrivateKey, threshold: int) -> None:
        """Make fresh secrets; `private` is the silo's X25519 key of the job."""
        self.place = place
        self.bundles: dict[str, Bundle] = {}
        self.digest = b""
        self._identity = identity
        self._private = private
        self._threshold = threshold
        self._secrets = Secrets()
        self._bundle = deal(self._secrets, place, threshold, private=private, identity=identity)
        self._shares: dict[str, dict[str, bytes]] = {}
        self._survivors: tuple[str, ...] = ()
        self._revealed = b""

    def share(self) -> bytes:
        """Return this silo's signed bundle."""
        return self._bundle

    def begin(self, bundles: Mapping[str, bytes]) -> None:
        """Verify the participants' bundles, and keep this silo's shares of their secrets."""
        own = self._identity.name
        if bundles.get(own) != self._bundle:
            raise KeyRefused("the round does not have this process's masks", where=str(self.place), remedy=UNUSED)
        digest = digest_of_bundles(bundles)
        if self.bundles and digest != self.digest:
            raise RoundRefused("it began with other masks before", where=str(self.place), remedy=UNUSED)
        self.bundles, self.digest = read_bundles(bundles, self.place), digest
        self._shares = {}
        for name, bundle in self.bundles.items():
            if name == own:
                continue
            shares = open_share(bundle, self.place, private=self._private, receiver=own)
            if shares is None:  # not worth a round: others' shares may be enough
                LOG.warning("%s: %s sealed a wrong share for this silo", self.place, name)
            else:
                self._shares[name] = shares

    def masks(self) -> Masks:
        """Return the masks of this silo's message: its own, plus those with later silos, minus those with earlier."""
        own, private = self._identity.name, private_key(self._secrets.pair_seed)
        plus = [self_key(self.place, own, self._secrets.self_seed)]
        minus: list[bytes] = []
        for other, bundle in self.bundles.items():
            if other != own:
                key = pair_key(self.place, private, bundle.public, (own, other))
                (plus if own < other else minus).append(key)
        return Masks(plus, minus)

    def sign(self, survivors: Collection[str], min_silos: int) -> bytes:
        """Return the signed statement of who arrived; a silo makes it for one set only."""
        names = tuple(sorted(set(survivors)))
        problem = ""
        if not set(names) <= self.bundles.keys():
            problem = "not all that arrived are of the round"
        elif len(names) < min_silos:
            problem = f"{len(names)} silos arrived; this silo needs {min_silos} (training.min_silos)"
        elif self._survivors and names != self._survivors:
            problem = f"this silo signed before that {', '.join(self._survivors)} arrived"
        if problem:
            raise RoundRefused(f"the survivors were refused: {problem}", where=str(self.place), remedy=UNUSED)
        self._survivors = names
        return sign_survivors(self.place, names, self._identity)

    def reveal(self, signatures: Mapping[str, bytes]) -> bytes:
        """Return what takes masks off the sum of the survivors that enough silos signed.

        Raises `SurvivorsDisputed` if any silo signed another set, `RoundRefused` below the threshold.
        """
        if not self._survivors:
            raise RoundRefused("this silo has not signed who arrived", where=str(self.place), remedy=UNUSED)
        agreed(self.place, self._survivors, signatures, self._threshold)
        if not self._revealed:
            self._revealed = sign_reveal(self._reveal(), self._identity)
        return self._revealed

    def _reveal(self) -> Reveal:
        own, arrived = self._identity.name, set(self._survivors)
        return Reveal(
            job=self.place.members.job,
            number=self.place.number,
            silo=own,
            roster=self.place.members.roster,
            survivors=self._survivors,
            seed=self._secrets.self_seed if own in arrived else b"",
            shares={name: both[SELF if name in arrived else PAIR] for name, both in self._shares.items()},
        )
