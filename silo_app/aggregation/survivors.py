"""Who arrived: silos sign the set that the server announces and reveal nothing until enough others signed the same one.

A server that could make silos believe in two sets for one round would get both masks of a silo. It cannot: a silo signs
one set a round, and enough silos must have signed it (`settings.threshold`) before anybody reveals anything.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import msgpack

from silo_app.aggregation.place import Place
from silo_app.aggregation.wire import NAME_LIMIT, parse_map
from silo_app.errors import RoundRefused, SurvivorsDisputed
from silo_app.identity import Identity

__all__ = ["Reveal", "agreed", "read_reveal", "read_signature", "sign_reveal", "sign_survivors"]

SURVIVORS = b"siloscope/survivors/1"
REVEAL = b"siloscope/reveal/1"
REMEDY = "Nothing was used. If it repeats, tell the server's operator."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal:
    """What one silo shows after the survivors were agreed on: of every silo one secret's share, never of both."""

    job: str
    number: int
    silo: str
    roster: bytes
    survivors: tuple[str, ...]
    seed: bytes
    """Of this silo's self mask, if it survived; else empty."""
    shares: Mapping[str, bytes]
    """By other silo: this silo's share of its self mask's seed if it survived, of its pairwise secret if it did not."""


def sign_survivors(place: Place, survivors: Collection[str], identity: Identity) -> bytes:
    """Return the statement that `survivors` are the silos whose messages arrived, signed."""
    content = [place.members.job, place.number, place.members.roster, sorted(survivors)]
    return identity.sign(msgpack.packb(content), context=SURVIVORS)


def agreed(place: Place, own: tuple[str, ...], signatures: Mapping[str, bytes], threshold: int) -> None:
    """Return if at least `threshold` silos signed the set `own`.

    Raises `SurvivorsDisputed` if any silo signed another set for this round, `RoundRefused` for too few signatures.
    """
    signers = set()
    for name, signed in sorted(signatures.items()):
        other = read_signature(place, name, signed)
        if other != own:
            raise SurvivorsDisputed(
                f"this silo was told that {', '.join(own)} arrived, {name} was told {', '.join(other)}",
                where=str(place),
                remedy="This silo revealed nothing. One of the server and the named silo does not follow the protocol; "
                "compare their logs before another job runs.",
            )
        signers.add(name)
    if len(signers) < threshold:
        raise RoundRefused(
            f"{len(signers)} silos signed who arrived; this silo reveals nothing below {threshold}",
            where=str(place),
            remedy="The round is void; the job goes on with the next one.",
        )


def read_signature(place: Place, name: str, signed: bytes) -> tuple[str, ...]:
    """Return who arrived, as the silo `name` signed. Raises `ProtocolError`, for another round or signer too."""
    verified = place.members.trust.verify(signed, context=SURVIVORS)
    try:
        job, number, roster, names = msgpack.unpackb(verified.payload)
        mine = (job, number, roster) == (place.members.job, place.number, place.members.roster)
    except (ValueError, TypeError, msgpack.UnpackException):
        mine, names = False, []
    if verified.name != name or name not in place.members.names or not mine:
        raise RoundRefused(
            f"the signature that came as that of {name[:NAME_LIMIT]} is of {verified.name}, or of another round",
            where=str(place),
            remedy=REMEDY,
        )
    return tuple(str(one) for one in names)


def sign_reveal(reveal: Reveal, identity: Identity) -> bytes:
    """Return `reveal`, signed."""
    return identity.sign(msgpack.packb(asdict(reveal)), context=REVEAL)


TYPES: dict[str, type] = {
    "job": str,
    "number": int,
    "silo": str,
    "roster": bytes,
    "survivors": list,
    "seed": bytes,
    "shares": dict,
}


def read_reveal(name: str, signed: bytes, place: Place, survivors: tuple[str, ...]) -> Reveal:
    """Verify what the silo `name` revealed. Raises `RoundRefused` for another round, set or silo."""
    verified = place.members.trust.verify(signed, context=REVEAL)
    content = parse_map(verified.payload, TYPES, refuse=RoundRefused, what=f"what {name} revealed")
    reveal = Reveal(**{**content, "survivors": tuple(content["survivors"])})
    belongs = (reveal.job, reveal.number, reveal.roster) == (place.members.job, place.number, place.members.roster)
    if not verified.name == reveal.silo == name or not belongs or reveal.survivors != survivors:
        raise RoundRefused(
            f"what came as revealed by {name[:NAME_LIMIT]} is of {verified.name}, of another round or other survivors",
            where=str(place),
            remedy=REMEDY,
        )
    return reveal
