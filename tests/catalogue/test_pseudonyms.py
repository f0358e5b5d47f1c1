"""Pseudonyms are stable for one key, different for another, and the key is private."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.cases import Split
from silo_app.catalogue import SiloKey
from silo_app.errors import NotReady

ONE, TWO = SiloKey(b"1" * 32), SiloKey(b"2" * 32)
words = st.text(max_size=20)


def test_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "silo" / "silo.key"
    key = SiloKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SiloKey.load_or_create(path) == key
    assert len(key.secret) == 32
    assert [entry.name for entry in path.parent.iterdir()] == ["silo.key"]


def test_key_is_not_shown(tmp_path):
    assert "1111" not in repr(ONE)


def test_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "silo.key"
    SiloKey.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(NotReady, match="chmod 600"):
        SiloKey.load_or_create(path)


def test_damaged_key_is_refused(tmp_path):
    path = tmp_path / "silo.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(NotReady, match="5 bytes instead of 32"):
        SiloKey.load_or_create(path)


@given(st.tuples(words, words), st.tuples(words, words))
def test_names_differ_exactly_when_identifiers_do(a, b):
    same = a == b or not (any(a) or any(b))
    assert (ONE.name("kind", *a) == ONE.name("kind", *b)) == same


@given(words.filter(bool))
def test_kinds_and_keys_do_not_share_names(word):
    assert len({ONE.name("study", word), ONE.name("patient", word), TWO.name("study", word)}) == 3
    assert word not in ONE.name("study", word) or len(word) < 4


def test_same_patient_id_of_another_issuer_is_another_patient():
    assert ONE.patient("1", "A") != ONE.patient("1", "B")


def test_share_of_held_out_patients():
    splits = [ONE.split(ONE.patient(str(n), ""), 0.2) for n in range(2000)]
    assert 320 < splits.count(Split.HELD_OUT) < 480
    assert ONE.split(ONE.patient("1", ""), 0.0) == Split.TRAIN
    other = [TWO.split(TWO.patient(str(n), ""), 0.2) for n in range(2000)]
    assert splits != other
