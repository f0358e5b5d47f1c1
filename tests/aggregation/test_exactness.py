"""What silos open is, bit for bit, the sum of the integers that the survivors quantised: real keys, masks and dropouts."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo_app.aggregation import body
from silo_app.aggregation.codec import WIDTHS, dequantise, quantise
from silo_app.aggregation.settings import threshold


@pytest.fixture
def integers(monkeypatch):
    """Return a list that every call of `quantise` adds its result to."""
    made = []

    def recording(*arguments):
        made.append(quantise(*arguments))
        return made[-1].copy()

    monkeypatch.setattr(body, "quantise", recording)
    return made


def check_round(federation, integers, number, silent, late, openers=None):
    """Run a round in which `late` silos' messages miss the sum and `silent` ones reveal nothing."""
    session = next(iter(federation.sessions.values()))
    steps = np.repeat(
        session._terms.steps(session._progress, len(session.silos)).astype(np.float32), federation.layout.sizes
    )
    federation.begin(number)
    integers.clear()
    updates = federation.updates(number)
    messages = {name: federation.encrypt(number, name, update) for name, update in updates.items()}
    quantised = dict(zip(updates, integers, strict=True))
    message, names = federation.add(number, messages, contributors=set(messages) - set(late))
    speaking = [name for name in messages if name not in silent]
    reveals = federation.reveal(number, names, signers=speaking)
    share = sum(federation.sessions[name].samples for name in names) / session._progress.total
    expected = dequantise(sum(quantised[name] for name in names), steps, share)
    for one in list(federation.sessions.values())[:openers]:
        np.testing.assert_array_equal(one.open_sum(number, message, names, reveals).update, expected)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("silos", [2, 3, 5])
def test_what_is_opened_is_the_integer_sum(make, integers, bits, silos):
    federation = make(range(1, silos + 1), bits=bits).ready()
    names = tuple(federation.sessions)
    spare = silos - threshold(silos, 2)
    check_round(federation, integers, 1, silent=(), late=())
    check_round(federation, integers, 2, silent=names[silos - spare :], late=())
    check_round(federation, integers, 3, silent=names[silos - spare :], late=names[silos - spare :])
    check_round(federation, integers, 4, silent=names[:spare], late=())


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), silos=st.integers(2, 32), bits=st.sampled_from(WIDTHS))
def test_sums_of_2_to_32_silos_are_the_integer_sums(make, integers, data, silos, bits):
    federation = make(data.draw(st.lists(st.integers(1, 10**6), min_size=silos, max_size=silos)), bits=bits).ready()
    spare = silos - threshold(silos, 2)
    silent = data.draw(st.lists(st.sampled_from(tuple(federation.sessions)), max_size=spare, unique=True))
    check_round(federation, integers, 1, silent=silent, late=silent, openers=2)
