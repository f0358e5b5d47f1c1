import pytest

from silo_app.keystream import KEY_BYTES, keystream


def test_it_is_aes_in_counter_mode():
    """AES-256 of a block of zeros under a key of zeros is known (NIST AESAVS); a stream goes on where it was."""
    key = bytes(range(KEY_BYTES))
    whole = keystream(key).update(bytes(64))
    stream = keystream(key)
    assert stream.update(bytes(10)) + stream.update(bytes(54)) == whole
    assert keystream(bytes(KEY_BYTES)).update(bytes(16)).hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_none(length):
    with pytest.raises(ValueError, match="the key of a keystream has 32 bytes"):
        keystream(bytes(length))
