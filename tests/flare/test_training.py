"""What the server's side of a training runs next, from what its ledger holds and what the silos said."""

from types import SimpleNamespace

import pytest

from silo_app.encoder.plan import TrainingPlan
from silo_app.flare.training import TrainingRounds


@pytest.mark.parametrize(
    ("sums", "enough", "select", "following"),
    [
        ({}, False, "last", "statistics"),
        ({"statistics": 1}, False, "last", "update"),
        ({"statistics": 1, "update": 2}, False, "last", None),
        ({"statistics": 1, "update": 1}, True, "last", None),
        ({"statistics": 1, "update": 2}, False, "best", "numbers"),
        ({"statistics": 1, "update": 1}, True, "best", "numbers"),
        ({"statistics": 1, "update": 2, "numbers": 1}, False, "best", None),
        ({"statistics": 1, "update": 1, "numbers": 1}, False, "best", None),
    ],
)
def test_counts_come_first_and_the_last_weights_losses_last(sums, enough, select, following):
    rounds = TrainingRounds()
    rounds._plan = TrainingPlan(rounds=2, select=select)
    rounds._ledger = SimpleNamespace(sums=lambda content: sums.get(content, 0))
    assert rounds._next(enough=enough) == following
