"""Pooled numbers reach NVFlare's own receivers, and nothing else does, whatever a site sends."""

import math
import sys
from types import SimpleNamespace

import pytest
from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import EventScope, FLContextKey, ProcessType, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.app_common.widgets.streaming import AnalyticsReceiver

from silo_app.encoder.sharing import SharedMetric
from silo_app.errors import NotReady
from silo_app.flare import tracking
from silo_app.flare.tracking import EVENT, Receivers, send


class Kept(AnalyticsReceiver):
    """A receiver as NVFlare's are, that keeps what it gets."""

    def __init__(self):
        super().__init__(events=[EVENT])
        self.kept, self.state = [], "new"

    def initialize(self, fl_ctx):
        self.state = "started"

    def save(self, fl_ctx, shareable, record_origin):
        self.kept.append((record_origin, shareable["DXO"]["data"] if "DXO" in shareable else shareable))

    def finalize(self, fl_ctx):
        self.state = "ended"


def arriving(dxo):
    """The context at the server when a silo's event has arrived."""
    data = dxo.to_shareable() if isinstance(dxo, DXO) else dxo
    if isinstance(data, Shareable):
        peer = {ReservedKey.IDENTITY_NAME: "alpha"}
        data.set_header(ReservedHeaderKey.PEER_PROPS, peer)
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.EVENT_DATA, data, private=True, sticky=False)
    fl_ctx.set_prop(FLContextKey.EVENT_SCOPE, EventScope.FEDERATION, private=True, sticky=False)
    return fl_ctx


def sent(metrics):
    """What a silo's process hands to NVFlare for the server."""
    events = []
    component = FLComponent()
    component.fire_fed_event = lambda event_type, event_data, fl_ctx: events.append((event_type, event_data))
    send(component, metrics, FLContext())
    return events


@pytest.fixture
def receiver(monkeypatch):
    receiver = Kept()
    monkeypatch.setattr(tracking, "_receiver", lambda _name: receiver)
    return receiver


def test_what_a_silo_sends_arrives_with_its_name_and_step(receiver):
    receivers = Receivers(["tensorboard"], FLContext())
    assert receiver.state == "started"
    ((event, data),) = sent([SharedMetric("held_out_loss", 3, 0.25)])
    assert event == EVENT
    receivers.handle(EVENT, arriving(data))
    ((origin, _),) = receiver.kept
    assert origin == "alpha"
    receivers.handle(EventType.END_RUN, FLContext())
    assert receiver.state == "ended"


def number(name="pooled/loss", value=0.5, kind=AnalyticsDataType.SCALAR, **more):
    return create_analytic_dxo(name, value, kind, **({"global_step": 1} | more))


@pytest.mark.parametrize(
    "foreign",
    [
        number("patients/Jane"),
        number(value=math.nan),
        number(kind=AnalyticsDataType.TEXT, value="Jane", path="../x"),
        number(path="../x"),
        create_analytic_dxo("pooled/loss", 0.5, AnalyticsDataType.SCALAR),
        DXO(DataKind.WEIGHTS, data={"a": 1}),
        Shareable(),
        "text",
    ],
)
def test_nothing_else_reaches_a_receiver(receiver, foreign):
    receivers = Receivers(["tensorboard"], FLContext())
    receivers.handle(EVENT, arriving(foreign))
    assert receiver.kept == []
    receivers.handle(EVENT, arriving(number()))
    assert len(receiver.kept) == 1


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tb.tb_receiver"), ("mlflow", "mlflow.mlflow_receiver")])
def test_a_library_that_is_missing_is_named(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, f"nvflare.app_opt.tracking.{module}", None)
    with pytest.raises(NotReady, match=f"tracks with {name}, which is not installed") as missing:
        Receivers([name], FLContext())
    assert f"siloscope[{name}]" in missing.value.remedy


def a_jobs(folder):
    """The context of a job's process at the server."""
    fl_ctx = FLContext()
    workspace = SimpleNamespace(get_run_dir=lambda _: str(folder), get_result_root=lambda _: str(folder))
    clients = [SimpleNamespace(name="alpha")]
    fl_ctx.get_engine = lambda: SimpleNamespace(get_workspace=lambda: workspace, get_clients=lambda: clients)
    fl_ctx.get_workspace = lambda: workspace
    fl_ctx.get_process_type = lambda: ProcessType.SERVER_JOB
    fl_ctx.get_job_id = lambda: "job"
    return fl_ctx


def tracked(name, folder):
    """Have one of NVFlare's receivers write two numbers."""
    fl_ctx = a_jobs(folder)
    receivers = Receivers([name], fl_ctx)
    for step, value in ((1, 0.5), (2, 0.25)):
        for _, data in sent([SharedMetric("loss", step, value)]):
            receivers.handle(EVENT, arriving(data))
    receivers.handle(EventType.END_RUN, fl_ctx)


def test_tensorboard_can_read_what_nvflares_receiver_wrote(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    tracked("tensorboard", tmp_path)
    (file,) = (tmp_path / "tensorboard" / "alpha").iterdir()
    events = [event for event in EventFileLoader(str(file)).Load() if event.summary.value]
    assert [(event.summary.value[0].tag, event.step) for event in events] == [("pooled/loss", 1), ("pooled/loss", 2)]


@pytest.mark.filterwarnings("default")  # MLflow's own, of SQLAlchemy and the like
def test_mlflow_can_read_what_nvflares_receiver_wrote_and_tells_nobody(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    tracked("mlflow", tmp_path)
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
    from mlflow.tracking import MlflowClient

    assert MLFLOW_DISABLE_TELEMETRY.get()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("siloscope").experiment_id])
    assert run.info.status == "FINISHED"
    assert [(one.value, one.step) for one in client.get_metric_history(run.info.run_id, "pooled/loss")] == [
        (0.5, 1),
        (0.25, 2),
    ]
