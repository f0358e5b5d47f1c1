"""What an index holds already, by content: exactly what is stored, and only of the encoder that is asked for."""

import numpy as np
import pytest

from silo_app.cases import CaseId, EncoderVersion
from silo_app.index.generations import building, open_current, publish
from silo_app.index.known import contents_of, indexed, known_vectors, missing_from

FIRST, SECOND = EncoderVersion("ab" * 16), EncoderVersion("cd" * 16)
DIGESTS = [f"{number:064x}" for number in range(6)]


@pytest.fixture
def home(make_silo):
    made = make_silo()
    made.root.mkdir()
    vectors = np.random.default_rng(0).standard_normal((6, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with building(made.index):
        cases = [CaseId(f"{number // 2:032x}") for number in range(6)]
        publish(made.index, vectors=vectors, cases=cases, digests=DIGESTS, encoder_version=FIRST)
    return made


def test_named_contents_come_back_as_they_are_stored(home):
    stored = open_current(home.index).gallery.vectors(np.arange(6))
    found = known_vectors(home, FIRST, [DIGESTS[4], "f" * 64, DIGESTS[1]])
    assert set(found) == {DIGESTS[4], DIGESTS[1]}
    assert np.array_equal(found[DIGESTS[4]], stored[4])
    everything = known_vectors(home, FIRST)
    assert list(everything) == DIGESTS
    assert np.array_equal(np.stack(list(everything.values())), stored)


def test_nothing_is_known_of_another_encoder_of_nothing_or_without_an_index(home, tmp_path):
    assert known_vectors(home, SECOND, DIGESTS) == {}
    assert known_vectors(home, FIRST, []) == {}
    for file in home.index.glob("*/manifest.json"):
        file.chmod(0o600)
        file.write_text("damaged")
    assert known_vectors(home, FIRST, DIGESTS) == {}


def test_views_are_told_by_content_and_case(home):
    held = indexed(home.index, "000001", FIRST)
    assert np.array_equal(held, contents_of(open_current(home.index)))
    assert indexed(home.index, "000001", SECOND) is None
    first, other = f"{DIGESTS[0]}{0:032x}", f"{DIGESTS[0]}{1:032x}"
    assert missing_from(held, [[first], [first]]) == 0
    assert missing_from(held, [[first, other], [f"{'f' * 64}{0:032x}"]]) == 2
