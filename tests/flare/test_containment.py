"""The contract with NVFlare's internals: what would end a job for all, and no longer does."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode, ServerCommandNames
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.fuel.common.exit_codes import ProcessExitCode
from nvflare.fuel.f3.cellnet import cell as cellnet
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, Encoding
from nvflare.fuel.f3.cellnet.utils import new_cell_message
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.private.defs import CellMessageHeaderKeys, JobFailureMsgKey
from nvflare.private.fed.server.fed_server import FederatedServer
from nvflare.private.fed.server.server_runner import ServerRunner

from silo_app.flare.containment import JobReports, contain

JOB, SILO = "a-job", "hospital-a"


class Jobs:
    """What NVFlare's server does to jobs."""

    def __init__(self):
        self.ended, self.resolved = [], []

    def is_client_outcome_pending(self, job, client):
        return (job, client) == (JOB, SILO)

    def fail_run(self, job, code, fl_ctx):
        self.ended.append((job, code))

    def stop_run(self, job, fl_ctx):
        self.ended.append((job, None))

    def resolve_client_outcome(self, job, client):
        self.resolved.append((job, client))


@pytest.fixture
def server():
    """The part of NVFlare's server that hears reports, with jobs that remember what is done to them."""
    made, listeners = object.__new__(FederatedServer), {}
    registered = SimpleNamespace(name=SILO)
    made.client_manager = SimpleNamespace(is_from_authorized_client=lambda _: True, clients={"token": registered})
    made.engine = SimpleNamespace(job_runner=Jobs(), new_context=FLContext, server=made)
    made.logger = SimpleNamespace(info=lambda *_: None, warning=lambda *_: None, error=lambda *_: None)
    made.cell = SimpleNamespace(
        register_request_cb=lambda channel, topic, cb: listeners.update({(channel, topic): cb}), listeners=listeners
    )
    return made


def report(code):
    return new_cell_message(
        {CellMessageHeaderKeys.TOKEN: "token"}, {JobFailureMsgKey.JOB_ID: JOB, JobFailureMsgKey.CODE: code}
    )


FATAL = [
    ProcessExitCode.EXCEPTION,
    ProcessExitCode.CONFIG_ERROR,
    ProcessExitCode.INFRASTRUCTURE_ERROR,
    ProcessExitCode.UNSAFE_COMPONENT,
    JobReturnCode.ABORTED,
]


@pytest.mark.parametrize("code", [*FATAL, JobReturnCode.UNKNOWN, JobReturnCode.SUCCESS, 12345, None, "x"])
def test_what_a_site_reports_is_noted_and_ends_no_job(server, code):
    fl_ctx = FLContext()
    fl_ctx.get_engine = lambda: server.engine
    JobReports().handle_event(EventType.SYSTEM_START, fl_ctx)
    listener = server.cell.listeners[CellChannel.SERVER_MAIN, CellChannelTopic.REPORT_JOB_FAILURE]
    listener(report(code))
    assert server.engine.job_runner.ended == []
    assert server.engine.job_runner.resolved == [(JOB, SILO)]


@pytest.mark.parametrize("payload", [None, b"", [], {}, {JobFailureMsgKey.CODE: 1}, {JobFailureMsgKey.JOB_ID: "another"}])
def test_a_malformed_report_is_nvflares_to_refuse(server, payload):
    fl_ctx = FLContext()
    fl_ctx.get_engine = lambda: server.engine
    JobReports().handle_event(EventType.SYSTEM_START, fl_ctx)
    (listener,) = server.cell.listeners.values()
    listener(new_cell_message({CellMessageHeaderKeys.TOKEN: "token"}, payload))
    assert (server.engine.job_runner.ended, server.engine.job_runner.resolved) == ([], [])


@pytest.mark.parametrize("code", FATAL)
def test_nvflare_alone_would_end_the_job(server, code):
    server.process_job_failure(report(code))
    assert [job for job, _ in server.engine.job_runner.ended] == [JOB]


@pytest.fixture
def runner():
    """The part of NVFlare's runner of a job that takes results, and what it gave on or panicked for."""
    made = object.__new__(ServerRunner)
    made.job_id, made.status, made.wf_lock, made.abort_signal = JOB, "started", threading.RLock(), None
    made.given, made.panics = [], []
    communicator = SimpleNamespace(
        process_submission=lambda **given: made.given.append(given["result"].get_return_code()),
        client_is_active=lambda *_: None,
    )
    made.current_wf = SimpleNamespace(id="w", controller=SimpleNamespace(communicator=communicator))
    made.config = SimpleNamespace(task_result_filters={})
    made.fire_event = lambda *_: None
    made.system_panic = lambda reason, fl_ctx: made.panics.append(reason)
    made.log_info = made.log_error = made.log_debug = made.log_exception = lambda *_: None
    return made


def submitted(runner, code):
    fl_ctx, peer = FLContext(), FLContext()
    peer.set_prop(FLContextKey.CURRENT_RUN, JOB, private=False)
    fl_ctx.set_peer_context(peer)
    fl_ctx.set_prop(FLContextKey.RUNNER, runner)
    runner.process_submission(SimpleNamespace(name=SILO), "round", "id", make_reply(code), fl_ctx)


@pytest.fixture
def contained(runner, monkeypatch):
    monkeypatch.setattr(cellnet, "_is_server_job_cell", cellnet._is_server_job_cell)  # put back after the test
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.RUNNER, runner)
    contain(fl_ctx)


@pytest.mark.parametrize("code", ServerRunner.ABORT_RETURN_CODES)
def test_a_result_with_a_fatal_code_reaches_its_task_as_a_refusal(contained, runner, code):
    submitted(runner, code)
    assert (runner.given, runner.panics) == ([code], [])


@pytest.mark.parametrize("code", ServerRunner.ABORT_RETURN_CODES)
def test_nvflare_alone_would_end_the_job_by_a_result(runner, code):
    submitted(runner, code)
    assert runner.given == []
    assert len(runner.panics) == 1


class Exited(BaseException):
    """In place of the end of this process."""


def undecodable(monkeypatch):
    """Give NVFlare a result that cannot be decoded, as a job's process on the server gets it."""

    def exits(_code):
        raise Exited

    monkeypatch.setattr(cellnet.os, "_exit", exits)
    got: Future[bytes] = Future()
    got.set_result(b"\xc1" * 10)
    got.headers = {
        StreamHeaderKey.CHANNEL: CellChannel.SERVER_COMMAND,
        StreamHeaderKey.TOPIC: ServerCommandNames.SUBMIT_UPDATE,
        StreamHeaderKey.PAYLOAD_ENCODING: Encoding.FOBS,
    }
    cell = SimpleNamespace(
        decode_pass_through_channels=(), decode_pass_through_topics=(), get_fobs_context=lambda props: props
    )
    cellnet.Adapter(lambda _request: None, SimpleNamespace(fqcn=f"server.{JOB}"), cell).call(got)


def test_a_result_that_cannot_be_decoded_is_an_error_and_no_end(contained, monkeypatch):
    with pytest.raises(Exception, match="expect main but got 193"):
        undecodable(monkeypatch)


def test_nvflare_alone_would_end_the_servers_process(monkeypatch):
    with pytest.raises(Exited):
        undecodable(monkeypatch)


def test_one_runner_is_changed_and_not_its_class(contained):
    assert ServerRunner.ABORT_RETURN_CODES == [ReturnCode.RUN_MISMATCH, ReturnCode.TASK_UNKNOWN, ReturnCode.UNSAFE_JOB]
