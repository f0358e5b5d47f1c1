import builtins
import dataclasses
import math

import pytest

from benchmarks import independent_accountant as independent
from silo_app.errors import ConfigInvalid, NotReady
from silo_app.privacy.accountant import Steps, epsilon_of, louder, noise_for


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(1.0, 0.01, 1000), (1.5, 0.06, 80), (0.8, 0.02, 200), (4.0, 0.5, 60), (6.0, 1.0, 20)]
)
def test_it_agrees_with_an_accountant_of_another_kind(noise, rate, steps):
    assert epsilon_of([Steps(noise, rate, steps)], 1e-5) == pytest.approx(
        independent.epsilon(noise, rate, steps, 1e-5), abs=0.05
    )


def test_nothing_spent_is_nothing():
    assert epsilon_of([], 1e-5) == epsilon_of([Steps(1.0, 0.1, 0)], 1e-5) == 0.0


def test_jobs_add_up_whatever_their_order():
    first, second = Steps(1.2, 0.05, 40), Steps(2.0, 0.1, 30)
    together = epsilon_of([first, second], 1e-5)
    assert together == pytest.approx(epsilon_of([second, first], 1e-5))
    assert max(epsilon_of([one], 1e-5) for one in (first, second)) < together
    assert together < epsilon_of([first], 1e-5) + epsilon_of([second], 1e-5)
    halves = [Steps(1.2, 0.05, 20), second, Steps(1.2, 0.05, 20)]
    assert epsilon_of(halves, 1e-5) == pytest.approx(together)


def test_more_noise_fewer_patients_or_fewer_steps_spend_less():
    usual = epsilon_of([Steps(1.0, 0.1, 50)], 1e-5)
    for less in (Steps(1.3, 0.1, 50), Steps(1.0, 0.07, 50), Steps(1.0, 0.1, 30)):
        assert epsilon_of([less], 1e-5) < usual
    assert epsilon_of([Steps(1.0, 0.1, 50)], 1e-7) > usual


def test_what_promises_nothing_is_infinite_and_no_crash():
    for nothing in (Steps(0.3, 1.0, 5000), Steps(0.3, 0.9, 100_000), Steps(0.0, 0.1, 1)):
        assert epsilon_of([nothing], 1e-5) == math.inf


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_the_noise_for_an_epsilon_spends_it_nearly_whole(epsilon):
    noise = noise_for(epsilon, 1e-5, 0.08, 60)
    spent = epsilon_of([Steps(noise, 0.08, 60)], 1e-5)
    assert 0.93 * epsilon < spent <= epsilon


def test_what_is_left_gets_louder_by_no_more_than_it_must():
    planned = Steps(noise_for(1.0, 1e-5, 0.4, 16), 0.4, 4)
    left, paid = dataclasses.replace(planned, steps=12), [planned, planned]
    assert louder(left, paid[:1], 1.0, 1e-5) == left
    found = louder(left, paid, 1.0, 1e-5)
    assert planned.noise < found.noise < 1.5 * planned.noise
    assert 0.92 < epsilon_of([*paid, found], 1e-5) <= 1.0


def test_what_no_sensible_noise_saves_stays_as_it_was_planned():
    planned = Steps(noise_for(1.0, 1e-5, 0.4, 16), 0.4, 4)
    assert louder(planned, [planned] * 4, 1.0, 1e-5) == planned


def test_an_epsilon_that_no_noise_gives_is_refused():
    with pytest.raises(ConfigInvalid, match="no noise gives"):
        noise_for(1e-4, 1e-5, 1.0, 100_000)


def test_without_opacus_the_remedy_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("opacus"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotReady) as caught:
        epsilon_of([Steps(1.0, 0.1, 1)], 1e-5)
    assert "siloscope[dp]" in caught.value.remedy
