"""A task that a silo does not know is refused by it, and ends nobody's job."""

import pytest
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.private.fed.server.server_runner import ServerRunner

from silo_app.flare import words
from silo_app.flare.anchor import Anchor
from silo_app.flare.evaluation import SiloEvaluation
from silo_app.flare.indexing import SiloIndexing
from silo_app.flare.silo_training import SiloTraining


@pytest.mark.parametrize("executor", [Anchor, SiloEvaluation, SiloIndexing, SiloTraining])
def test_an_unknown_task_is_refused_with_a_code_that_is_not_fatal_to_the_job(executor):
    reply = executor().execute("siloscope.of-tomorrow", Shareable(), FLContext(), Signal())
    assert reply.get_return_code() not in ServerRunner.ABORT_RETURN_CODES
    assert reply[words.REFUSAL]["code"] == "message-invalid"
