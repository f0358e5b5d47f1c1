"""Contents have one name under one key, as an independent implementation of GMAC and HMAC computes it."""

import hashlib
import hmac

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from hypothesis import given
from hypothesis import strategies as st

from silo_app.catalogue import ContentKey, SiloKey

KEY = ContentKey(b"1" * 32)


@given(st.binary(max_size=200))
def test_the_name_is_hmac_of_gmac(content):
    hashing, naming = HKDF(KEY.secret, 32, b"", SHA256, num_keys=2, context=b"siloscope contents")
    tag = AES.new(hashing, AES.MODE_GCM, nonce=bytes(12)).update(content).digest()
    assert KEY.name(content) == hmac.new(naming, tag, hashlib.sha256).hexdigest()


def test_the_name_stays_what_it_was():
    """Another name would have every file of every silo read, and every view embedded, again."""
    assert KEY.name(b"DICM") == "1244f0c82aea7107e43cc37a54151b2db37ce78be6db3b43c46727787a48886e"


@given(st.binary(max_size=100), st.integers(min_value=0), st.integers(0, 7))
def test_any_other_bit_or_byte_gives_another_name(content, place, bit):
    other = bytearray(content + b"\0")
    assert KEY.name(bytes(other)) != KEY.name(content)
    other[place % len(other)] ^= 1 << bit
    assert KEY.name(bytes(other)) not in {KEY.name(content), KEY.name(content + b"\0")}


def test_another_key_gives_other_names():
    assert ContentKey(b"2" * 32).name(b"x") != KEY.name(b"x")
    assert ContentKey.fresh() != ContentKey.fresh()


def test_a_silos_key_of_contents_is_its_own_and_tells_nothing_of_the_silos():
    one, two = SiloKey(b"1" * 32), SiloKey(b"2" * 32)
    assert one.contents == SiloKey(b"1" * 32).contents != two.contents
    assert one.contents.secret != one.secret


def test_the_key_travels_as_text_and_is_not_shown():
    assert ContentKey.of_hex(KEY.hex) == KEY
    assert "1111" not in repr(KEY)
    for bad in ("", "00", "no number", "00" * 33):
        with pytest.raises(ValueError, match=r"32 bytes|hexadecimal"):
            ContentKey.of_hex(bad)
