"""When a silo stands aside: an exploding loss, a collapsing AUC, nothing below that, and nothing by chance."""

import pytest

from silo_app.config import AcceptanceSettings
from silo_app.encoder.acceptance import why_rejected

BEFORE = {"loss": 0.5, "auc": {"Effusion": 0.8, "Nodule": 0.7}, "views": 100}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"loss": float("nan")}, "the loss on held-out patients is not finite"),
        ({"loss": 3.6}, "the loss on held-out patients explodes"),
        ({"loss": 3.4}, ""),
        ({"auc": {"Effusion": 0.4, "Nodule": 0.4}}, "the AUC on held-out patients collapses"),
        ({"auc": {"Effusion": 0.3, "Nodule": 0.7}}, ""),
        ({"auc": {"Effusion": None, "Nodule": 0.7}}, ""),
        ({"loss": 99.0, "views": 5}, ""),
        ({"loss": float("inf"), "views": 5}, "the loss on held-out patients is not finite"),
        ({"loss": None, "auc": {}, "views": 0}, ""),
    ],
)
def test_what_is_rejected(change, why):
    assert why_rejected(BEFORE, BEFORE | change, AcceptanceSettings()) == why
    assert why_rejected(BEFORE, BEFORE | change, AcceptanceSettings(test=False)) == ""


def test_the_first_weights_are_compared_with_nothing():
    assert why_rejected({}, BEFORE | {"loss": 99.0}, AcceptanceSettings()) == ""
    assert why_rejected(None, BEFORE, AcceptanceSettings()) == ""
