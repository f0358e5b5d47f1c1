"""The server knows when silos can open a sum, and keeps out what is of another round; it has no key for any of it."""

import pytest

from silo_app.aggregation.gathering import Gathering
from silo_app.aggregation.settings import threshold
from silo_app.errors import MessageInvalid, RoundRefused

NAMES = tuple(f"silo-{index:02}" for index in range(5))
ARRIVED = NAMES[:4]


@pytest.fixture(scope="module")
def material(make):
    """Return bundles, signatures and reveals of a round that the last of five silos dropped out of."""
    federation = make((1,) * 5, min_silos=3).exchange()
    bundles = federation.begin(0)
    signatures = {name: federation.sessions[name].sign_survivors(0, ARRIVED) for name in NAMES}
    reveals = {name: federation.sessions[name].reveal(0, signatures) for name in NAMES}
    return bundles, signatures, reveals


@pytest.fixture
def gathering(material):
    gathering = Gathering("job-1", 0, threshold(5, 3))
    for name, bundle in material[0].items():
        gathering.add_bundle(name, bundle)
    assert gathering.participants == NAMES
    return gathering


def test_silos_agree_at_the_threshold(material, gathering):
    assert gathering.close_uploads(ARRIVED) == ARRIVED
    agreed = []
    for name in NAMES:
        gathering.add_signature(name, material[1][name])
        agreed.append(gathering.is_agreed)
    assert agreed == [False, False, False, True, True]


def test_a_sum_is_open_when_every_mask_can_be_taken_off(material, gathering):
    gathering.close_uploads(ARRIVED)
    for name in NAMES[:3]:
        gathering.add_reveal(name, material[2][name])
        assert not gathering.is_open
    assert gathering.missing == NAMES[3:]  # four shares are needed of each
    gathering.add_reveal(NAMES[4], material[2][NAMES[4]])
    assert gathering.missing == (NAMES[4],)  # the one that dropped out may help with others, not with itself
    gathering.add_reveal(NAMES[3], material[2][NAMES[3]])
    assert gathering.is_open


def test_what_is_of_another_round_or_silo_is_refused(make, material, gathering):
    bundles, signatures, reveals = material
    gathering.close_uploads(ARRIVED[:3])
    with pytest.raises(RoundRefused, match="another round or silo"):
        gathering.add_bundle(NAMES[1], bundles[NAMES[0]])
    with pytest.raises(RoundRefused, match="other survivors"):
        gathering.add_signature(NAMES[0], signatures[NAMES[0]])
    with pytest.raises(RoundRefused, match="other survivors"):
        gathering.add_reveal(NAMES[0], reveals[NAMES[0]])
    with pytest.raises(RoundRefused, match="not the set of silos that was announced"):
        gathering.close_uploads(ARRIVED)
    with pytest.raises(RoundRefused, match="not of the round"):
        Gathering("job-1", 0, 2).close_uploads(ARRIVED)
    with pytest.raises(RoundRefused, match="another round or silo"):
        Gathering("job-1", 1, 2).add_bundle(NAMES[0], bundles[NAMES[0]])
    with pytest.raises(RoundRefused, match="has no threshold"):
        gathering.add_bundle(NAMES[0], reveals[NAMES[0]])


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x80"])
def test_junk_is_refused(gathering, junk):
    for add in (gathering.add_bundle, gathering.add_signature, gathering.add_reveal):
        with pytest.raises(MessageInvalid):
            add(NAMES[0], junk)
