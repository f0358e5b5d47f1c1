"""TensorBoard and MLflow through NVFlare's own receivers: pooled losses travel as NVFlare's analytics events.

The receivers run in the server's job process. What they write is decided here: numbers of known names alone, whatever a
site sends. The MLflow server is the operator's choice (`MLFLOW_TRACKING_URI`), never a job's; and what MLflow would report
of itself to its makers is turned off, unless the operator's `MLFLOW_DISABLE_TELEMETRY` says otherwise.
"""

import math
import os
from collections.abc import Iterable, Sequence

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType, TrackConst
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.widgets.streaming import AnalyticsReceiver

from silo_app.encoder.sharing import METRICS, SharedMetric
from silo_app.errors import NotReady

__all__ = ["Receivers", "send"]

EVENT = f"fed.{ANALYTIC_EVENT_TYPE}"
_STEP = TrackConst.GLOBAL_STEP_KEY
_PREFIX = "pooled/"


def send(component: FLComponent, metrics: Iterable[SharedMetric], fl_ctx: FLContext) -> None:
    """Send numbers to the server's receivers; nobody waits for them."""
    for one in metrics:
        dxo = create_analytic_dxo(_PREFIX + one.name, one.value, AnalyticsDataType.SCALAR, **{_STEP: one.step})
        send_analytic_dxo(component, dxo, fl_ctx, event_type=EVENT, fire_fed_event=True)


class Receivers:
    """NVFlare's receivers of one job."""

    def __init__(self, names: Sequence[str], fl_ctx: FLContext) -> None:
        """Start them. Raises `NotReady` if a library is missing."""
        self._receivers = [_receiver(name) for name in names]
        for receiver in self._receivers:
            receiver.handle_event(EventType.START_RUN, fl_ctx)

    def handle(self, event_type: str, fl_ctx: FLContext) -> None:
        """Pass on the end of the run, and events with a number of ours."""
        if event_type == EventType.END_RUN or (event_type == EVENT and _is_ours(fl_ctx)):
            for receiver in self._receivers:
                receiver.handle_event(event_type, fl_ctx)


def _receiver(name: str) -> AnalyticsReceiver:
    try:
        if name == "tensorboard":
            from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver

            return TBAnalyticsReceiver(tb_folder="tensorboard", events=[EVENT])
        # before it is loaded: its makers would be told what this server does with it
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from nvflare.app_opt.tracking.mlflow.mlflow_receiver import MLflowReceiver

        names = {"experiment_name": "siloscope", "run_name": "pooled"}
        return MLflowReceiver(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"), kw_args=names, events=[EVENT])
    except ImportError:
        raise NotReady(
            f"the job tracks with {name}, which is not installed at the server",
            remedy=f"Submit it without track, or install the extra at the server: pip install 'siloscope[{name}]'.",
        ) from None


def _is_ours(fl_ctx: FLContext) -> bool:
    """Return whether an event is one number as `send` makes it; a site could send texts, files or other names."""
    data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
    if not isinstance(data, Shareable):
        return False
    try:
        dxo = from_shareable(data)
    except (AssertionError, TypeError, ValueError):
        return False
    content, kind = dict(dxo.data or {}), dxo.get_meta_prop(TrackConst.DATA_TYPE_KEY)
    name, value, step = (content.pop(key, None) for key in (TrackConst.TRACK_KEY, TrackConst.TRACK_VALUE, _STEP))
    known = kind == AnalyticsDataType.SCALAR and name in {_PREFIX + metric for metric in METRICS}
    sound = isinstance(value, float) and math.isfinite(value) and isinstance(step, int)
    return known and sound and content in ({}, {TrackConst.KWARGS_KEY: {_STEP: step}})
