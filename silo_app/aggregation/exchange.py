"""A silo's way to the job's key: announce, believe the others, make or receive the key. No network, no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from silo_app.aggregation import keys, ring
from silo_app.aggregation.cipher import Cipher, new_secret
from silo_app.aggregation.keys import Announcement, Roster
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.wire import NAME_LIMIT
from silo_app.errors import KeyRefused, UpdateRefused
from silo_app.identity import Identity

__all__ = ["KeyExchange"]

RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw
REJOIN = "This silo sits out the rest of the job. Submit the job again to include it."


@dataclass(kw_only=True)
class KeyExchange:
    """One silo's part in the key exchange of one job; what it makes and receives stays in memory."""

    job: str
    identity: Identity
    layout: Layout
    initial: bytes
    first_job: str
    next_round: int
    basis: bytes
    settings: AggregationSettings
    min_silos: int
    roster: Roster | None = field(init=False, default=None)
    cipher: Cipher | None = field(init=False, repr=False, default=None)
    secret: bytes = field(init=False, repr=False, default=b"")
    private: X25519PrivateKey = field(init=False, repr=False, default_factory=X25519PrivateKey.generate)
    _announced: bytes = field(init=False, repr=False, default=b"")

    def announce(self) -> bytes:
        """Return this silo's signed announcement; the same bytes when called again."""
        if not self._announced:
            self._announced = keys.announce(self._announcement(), self.identity)
        return self._announced

    def receive_roster(self, announcements: Mapping[str, bytes]) -> dict[str, bytes]:
        """Believe who is in the job, or refuse; return the wrapped keys to relay, by receiver."""
        if self.roster is not None:
            raise self._refused("the silos of this job were fixed before", REJOIN)
        trust = self.identity.trust
        read = {name: keys.read_announcement(name, signed, trust) for name, signed in sorted(announcements.items())}
        self._require_mutual(read, announcements)
        self.roster = Roster.of(read, announcements)
        if self.settings.encryption == "none" or self.roster.first != self.identity.name:
            return {}
        return self._make_key(self.roster)

    def receive_key(self, wrapped: bytes) -> None:
        """Take the key that the first silo made."""
        if self.settings.encryption == "none" or self.cipher is not None:
            raise self._refused("this silo expects no key now", "Nothing was changed; tell the server's operator.")
        secret, key_id = keys.unwrap(wrapped, self.require_roster(), self.private, self.identity)
        received = Cipher(secret)
        if received.key_id != key_id:
            raise self._refused(
                "the key is another one here than at its sender",
                "Install the same tenseal (constraints.txt) at all silos.",
            )
        self.cipher, self.secret = received, secret

    def require_roster(self) -> Roster:
        """Return the roster, or say what is missing."""
        if self.roster is None:
            raise self._refused("this process does not know the silos of the job", REJOIN)
        return self.roster

    def require_cipher(self) -> Cipher:
        """Return the job's cipher, or say what is missing."""
        if self.cipher is None:
            raise self._refused(
                "this process does not have the job's key: it missed the key exchange, or was started again since",
                REJOIN,
            )
        return self.cipher

    def _announcement(self) -> Announcement:
        return Announcement(
            job=self.job,
            silo=self.identity.name,
            public=self.private.public_key().public_bytes(*RAW),
            layout=self.layout.digest,
            initial=self.initial,
            settings=self.settings.digest,
            first_job=self.first_job,
            next_round=self.next_round,
            basis=self.basis,
        )

    def _make_key(self, roster: Roster) -> dict[str, bytes]:
        secret = new_secret()
        self.cipher, self.secret = Cipher(secret), secret
        return {
            name: keys.wrap(
                secret,
                self.cipher.key_id,
                roster=roster,
                receiver=name,
                private=self.private,
                own=self.identity,
            )
            for name in roster.announcements
            if name != self.identity.name
        }

    def _require_mutual(self, read: Mapping[str, Announcement], signed: Mapping[str, bytes]) -> None:
        """Refuse a roster without this silo, too small or too large, or of silos that would not add up."""
        if signed.get(self.identity.name) != self.announce():
            raise self._refused("the list of silos does not have this process's announcement", REJOIN)
        if not self.min_silos <= len(read) <= ring.MAX_SILOS:
            raise self._refused(
                f"{len(read)} silos are in the job; this silo takes part with {self.min_silos} to {ring.MAX_SILOS}",
                "Wait for more silos, or change training.min_silos in silo.yaml.",
            )
        publics = [announcement.public for announcement in read.values()]
        for name, announcement in read.items():
            self._require_alike(name, announcement)
        self._require_one_history(read)
        for name, announcement in read.items():
            if publics.count(announcement.public) > 1 or not keys.is_usable(announcement.public):
                raise self._refused("its X25519 key is of another silo, or none", "Nothing was used.", name)

    def _require_one_history(self, read: Mapping[str, Announcement]) -> None:
        """Refuse silos that say of the same rounds that they were different; one that missed rounds may catch up."""
        bases: dict[int, str] = {self.next_round: self.identity.name}
        for name, announcement in read.items():
            if announcement.first_job != self.first_job:
                raise UpdateRefused(
                    f"its rounds began in job {announcement.first_job[:NAME_LIMIT]}, this silo's in job {self.first_job}",
                    where=name,
                    remedy="Only silos that were in the job may resume it; run it without the others.",
                )
            like = bases.setdefault(announcement.next_round, name)
            if announcement.basis != (self.basis if like == self.identity.name else read[like].basis):
                raise UpdateRefused(
                    f"its rounds before round {announcement.next_round} are not those of {like}",
                    where=name,
                    remedy="Resume the job without this silo, or start it anew.",
                )

    def _require_alike(self, name: str, announcement: Announcement) -> None:
        if announcement.job != self.job:
            raise self._refused(f"its announcement is of another job than {self.job}", "Nothing was used.", name)
        own = self._announcement()
        for what in ("layout", "initial", "settings"):
            if getattr(announcement, what) != getattr(own, what):
                raise UpdateRefused(
                    f"it has other {NAMES[what]} than this silo",
                    where=name,
                    remedy="All silos train the same encoder with the same job settings; compare the versions.",
                )

    def _refused(self, problem: str, remedy: str, where: str = "") -> KeyRefused:
        return KeyRefused(problem, where=where or f"{self.identity.name}, job {self.job}", remedy=remedy)


NAMES = {"layout": "tensors", "initial": "initial weights", "settings": "aggregation settings"}
