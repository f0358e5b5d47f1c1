"""Every wrong setting is named at once, where it was written, with what was meant."""

import pytest

from silo_app.encoder.checked_plan import OPTION
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"roundz": 3}, "unknown setting roundz; did you mean rounds?"),
        ({"training": {"batchsize": 3}}, "unknown setting training.batchsize; did you mean training.batch_size?"),
        ({"learning_rate": 0.1}, "unknown setting learning_rate; did you mean training.learning_rate?"),
        ({"privacy": {"epsilonn": 1}}, "unknown setting privacy.epsilonn; did you mean privacy.epsilon?"),
        ({"colour": "red"}, "unknown setting colour"),
        ({"patience": 3}, '(plan): patience needs select "best"'),
        ({"rounds": 0}, "rounds: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_meant(content, problem):
    with pytest.raises(ConfigInvalid) as refused:
        TrainingPlan.checked(content)
    assert problem in refused.value.problem.split("\n")


def test_the_place_is_where_the_reader_wrote_it():
    places = []
    for where in ((), (OPTION,)):
        with pytest.raises(ConfigInvalid) as refused:
            TrainingPlan.checked({"rounds": 0, "seed": -1}, *where)
        assert len(refused.value.problem.split("\n")) == 2
        places.append(refused.value.where)
    assert places == ["app/config/config_fed_server.json: plan", "--set"]
