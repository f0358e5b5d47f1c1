import pytest

from silo_app.encoder.sharing import SharedMetric, consent, shared

LINE = {"loss": 0.5, "held_out_loss": 0.25, "trained": 3}


def test_numbers_carry_the_round_that_they_are_of():
    assert shared(3, 2, {"share_metrics": 2.0}, LINE) == [
        SharedMetric("loss", 3, 0.5),
        SharedMetric("held_out_loss", 2, 0.25),
    ]


@pytest.mark.parametrize("sums", [{}, {"share_metrics": 1.0}, {"share_metrics": 3.0}, {"share_metrics": 0.0}])
def test_nothing_is_shared_unless_every_silo_agreed(sums):
    assert shared(3, 2, sums, LINE) == []


def test_what_is_not_known_is_not_shared():
    assert shared(1, 2, {"share_metrics": 2.0}, {}) == []
    assert shared(0, 0, {"share_metrics": 0.0}, LINE) == []


def test_consent_is_a_number():
    assert (consent(True), consent(False)) == ({"share_metrics": 1.0}, {"share_metrics": 0.0})
