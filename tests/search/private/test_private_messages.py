"""The messages of a private search fit what they carry at the largest dimension, and nothing larger."""

import numpy as np
import pytest
from pydantic import ValidationError

from silo_app.flare.cells import MAX_REQUEST_BYTES
from silo_app.search.messages import Relay
from silo_app.search.private.asker import Asking
from silo_app.search.private.messages import PrivateRequest
from silo_app.search.private.scheme import MAX_DIMENSION
from silo_app.search.wire import decode, encode


def request(**fields):
    known = {
        "issued_at_ms": 1,
        "budget_ms": 1000,
        "purpose": "care",
        "asker": "north",
        "encoder_version": "ab" * 32,
        "dimension": MAX_DIMENSION,
        "ciphertext": b"x",
        "session": "0" * 32,
    }
    return PrivateRequest(**(known | fields))


def test_a_first_query_of_the_largest_dimension_fits_into_one_message():
    asking = Asking.begin(MAX_DIMENSION)
    vector = np.full(MAX_DIMENSION, MAX_DIMENSION**-0.5, np.float32)
    made = request(ciphertext=asking.ask(vector).ciphertext, keys=asking.keys)
    frame = encode(made)
    assert decode(frame, PrivateRequest) == made
    assert len(encode(Relay(silo="south", budget_ms=1000, frame=frame))) < MAX_REQUEST_BYTES / 2


@pytest.mark.parametrize("fields", [{"keys": b"x" * 2_000_000}, {"ciphertext": b"x" * 300_000}, {"session": "x"}])
def test_what_no_asker_sends_is_refused(fields):
    with pytest.raises(ValidationError):
        request(**fields)
