import pytest

from silo_app.errors import ConfigInvalid
from silo_app.overrides import override


def test_settings_stand_in_the_place_of_others_and_leave_the_rest():
    content = {"rounds": 8, "training": {"epochs": 1, "contrast": 0.3}}
    override(content, {"rounds": 4, "training.contrast": 0.1, "averaging.method": "mean"})
    assert content == {"rounds": 4, "training": {"epochs": 1, "contrast": 0.1}, "averaging": {"method": "mean"}}


def test_a_name_that_leads_into_a_value_is_said():
    with pytest.raises(ConfigInvalid, match="rounds holds no settings"):
        override({"rounds": 8}, {"rounds.x": 1})
