"""The server's side: it adds what fits, names what does not, and keeps its sum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation import ring, wire
from silo_app.aggregation.sums import RoundSum, RoundSums
from silo_app.errors import ProtocolError, RoundRefused, UpdateRefused


def changed(message, body=None, **fields):
    header, old = wire.split(message)
    new = old if body is None else body
    values = {slot: getattr(header, slot) for slot in type(header).__slots__}
    return wire.join(type(header)(**{**values, "body": wire.body_digest(new), **fields}), new)


@pytest.fixture(scope="module", params=["bfv", "none"])
def round_zero(make, request):
    """Return a federation and every silo's update of round 0."""
    federation = make(encryption=request.param).exchange()
    updates = federation.updates()
    federation.begin(0)
    return federation, {name: federation.encrypt(0, name, update) for name, update in updates.items()}


def test_the_order_of_arrival_does_not_matter(round_zero):
    federation, messages = round_zero
    results = []
    for names in (sorted(messages), sorted(messages, reverse=True)):
        total = RoundSum("job-1", 0)
        assert [total.add(messages[name], silo=name) for name in names] == names
        results.append(total.result())
        assert total.contributors == tuple(sorted(messages))
    header, body = wire.split(results[0])
    assert header == wire.split(results[1])[0] or federation.sessions["silo-00"].settings.encryption == "none"
    assert len(body) == len(wire.split(results[1])[1])


def junk_words(message):
    body = wire.split(message)[1].copy()
    body[: ring.wire_bytes(1)] = 255
    return changed(message, body)


CASES = {
    "twice": (lambda messages: messages["silo-00"], RoundRefused, "silo-00: it is for round 0 of job job-1"),
    "another round": (lambda messages: changed(messages["silo-01"], round_number=1), RoundRefused, "for round 1 of"),
    "another job": (lambda messages: changed(messages["silo-01"], job="job-2"), RoundRefused, "of job job-2"),
    "another layout": (lambda messages: changed(messages["silo-01"], layout=bytes(32)), UpdateRefused, "in layout"),
    "another key": (lambda messages: changed(messages["silo-01"], key=b"x"), UpdateRefused, "in key"),
    "width and history": (
        lambda messages: changed(messages["silo-01"], bits=10, basis=bytes(32)),
        UpdateRefused,
        "silo-01: it differs from the others in bits, basis",
    ),
    "fewer participants": (
        lambda messages: changed(messages["silo-01"], participants=("silo-01", "silo-02")),
        UpdateRefused,
        "in participants",
    ),
    "a sum": (lambda messages: changed(messages["silo-01"], kind="sum"), UpdateRefused, "it is a sum of silo-01"),
    "of two": (
        lambda messages: changed(messages["silo-01"], silos=("silo-01", "silo-02")),
        UpdateRefused,
        "it is an update of silo-01, silo-02, not",
    ),
    "short": (
        lambda messages: changed(messages["silo-01"], wire.split(messages["silo-01"])[1][1:].copy()),
        UpdateRefused,
        "bytes for 142",
    ),
    "not numbers": (lambda messages: junk_words(messages["silo-01"]), UpdateRefused, "silo-01: "),
    "cut": (lambda messages: messages["silo-01"][:-1], UpdateRefused, "its body is not"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_named_and_left_out(round_zero, case):
    _, messages = round_zero
    change, error, problem = CASES[case]
    total, clean = RoundSum("job-1", 0), RoundSum("job-1", 0)
    total.add(messages["silo-00"])
    with pytest.raises(error) as caught:
        total.add(change(messages))
    assert problem in str(caught.value)
    for running in (total, clean):
        for name in sorted(messages.keys() - set(running.contributors)):
            running.add(messages[name])
    np.testing.assert_array_equal(total.result(), clean.result())


def test_a_silo_cannot_speak_for_another(round_zero):
    with pytest.raises(UpdateRefused, match="silo-02: it is an update of silo-01, not an update of silo-02"):
        RoundSum("job-1", 0).add(round_zero[1]["silo-01"], silo="silo-02")


def test_a_first_message_of_impossible_width_is_refused(round_zero):
    federation, messages = round_zero
    if federation.sessions["silo-00"].settings.encryption == "bfv":
        with pytest.raises(UpdateRefused, match="values of 0 bits"):
            RoundSum("job-1", 0).add(changed(messages["silo-00"], bits=0))


def test_what_is_expected_can_be_fixed_before_the_first_arrives(round_zero):
    _, messages = round_zero
    total = RoundSum("job-1", 0, expected=wire.split(messages["silo-00"])[0])
    with pytest.raises(UpdateRefused, match="in layout"):
        total.add(changed(messages["silo-01"], layout=bytes(32)))


@pytest.mark.parametrize("arrived", [0, 1, 2])
def test_a_sum_needs_enough_silos(round_zero, arrived):
    total = RoundSum("job-1", 0, min_silos=3)
    for name in sorted(round_zero[1])[:arrived]:
        total.add(round_zero[1][name])
    with pytest.raises(RoundRefused, match=f"round 0 has {arrived} updates of the 3 that it needs"):
        total.result()


def test_a_plain_update_with_values_that_are_not_finite_is_refused(round_zero):
    federation, messages = round_zero
    if federation.sessions["silo-00"].settings.encryption == "none":
        body = wire.split(messages["silo-00"])[1].copy()
        body[:4] = np.float32([np.nan]).view(np.uint8)
        with pytest.raises(UpdateRefused, match="not finite"):
            RoundSum("job-1", 0).add(changed(messages["silo-00"], body))


def test_a_sum_weighs_as_much_as_one_update(round_zero):
    _, messages = round_zero
    total = RoundSum("job-1", 0)
    for message in messages.values():
        total.add(message)
    seeds = 2 * len(messages) * ring.SEED_BYTES  # of two blocks: the numbers and the update
    assert len(total.result()) <= max(map(len, messages.values())) + seeds + 64


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "different", [{"layout": bytes(32)}, {"participants": ("silo-01",)}, {"basis": b"x"}, {"masks": b"x"}]
)
def test_one_silo_that_differs_is_named_even_if_it_comes_first(round_zero, different, first):
    _, messages = round_zero
    sums = RoundSums("job-1", 0, min_silos=2)
    odd = changed(messages["silo-01"], **different)
    others = [name for name in messages if name != "silo-01"]
    for name in ["silo-01", *others] if first else [*others, "silo-01"]:
        sums.add(odd if name == "silo-01" else messages[name], silo=name)
    assert sums.contributors == tuple(others)
    assert [f"in {', '.join(different)}" in str(error) for error in sums.others.values()] == [True]
    assert list(sums.others) == ["silo-01"]
    alone = RoundSum("job-1", 0)
    for name in others:
        alone.add(messages[name])
    np.testing.assert_array_equal(sums.result(), alone.result())


def test_a_silo_has_one_update_in_all_sums(round_zero):
    _, messages = round_zero
    sums = RoundSums("job-1", 0, min_silos=2)
    sums.add(messages["silo-00"], silo="silo-00")
    with pytest.raises(RoundRefused, match="another update before"):
        sums.add(changed(messages["silo-00"], basis=b"x"), silo="silo-00")
    with pytest.raises(RoundRefused, match="with updates of silo-00"):
        sums.add(messages["silo-00"], silo="silo-00")
    with pytest.raises(UpdateRefused, match="not an update of silo-01"):
        sums.add(messages["silo-00"], silo="silo-01")
    assert (sums.contributors, sums.others) == (("silo-00",), {})


def test_updates_that_all_differ_make_no_sum(round_zero):
    sums = RoundSums("job-1", 0, min_silos=2)
    with pytest.raises(RoundRefused, match="0 updates of the 2"):
        sums.result()
    for number, (name, message) in enumerate(sorted(round_zero[1].items())):
        sums.add(changed(message, basis=bytes([number])), silo=name)
    with pytest.raises(RoundRefused, match="1 updates of the 2"):
        sums.result()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_updates_are_refused_and_never_crash(round_zero, data):
    message = round_zero[1]["silo-00"]
    where = data.draw(st.integers(0, 400) | st.integers(0, len(message) - 1))
    damaged = message[:where].copy() if data.draw(st.booleans()) else message.copy()
    if len(damaged) == len(message):
        damaged[where] ^= data.draw(st.integers(1, 255))
    total = RoundSum("job-1", 0)
    total.add(round_zero[1]["silo-02"])
    with pytest.raises(ProtocolError):
        total.add(damaged)
