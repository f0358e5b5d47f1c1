"""`jobs/survey`: NVFlare's federated statistics over fixed tables, with every silo's own policy upon its answer.

The job names only our two classes and brings no filter: what protects a silo is done by the silo's own code, so that no job
can leave it out. NVFlare's cleansers come last, with the silo's numbers: they take out what our rule should have.
"""

import json
from types import SimpleNamespace
from typing import Any

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.statistics_spec import Bin, DataType, Feature, Histogram, HistogramType, Statistics
from nvflare.app_common.app_constant import StatisticsConstants as Words
from nvflare.app_common.executors.statistics.statistics_executor import StatisticsExecutor
from nvflare.app_common.executors.statistics.statistics_task_handler import StatisticsTaskHandler
from nvflare.app_common.filters.statistics_privacy_filter import StatisticsPrivacyFilter
from nvflare.app_common.statistics.histogram_bins_cleanser import HistogramBinsCleanser
from nvflare.app_common.statistics.min_count_cleanser import MinCountCleanser
from nvflare.app_common.workflows.statistics_controller import StatisticsController
from nvflare.fuel.utils import fobs
from pydantic import BaseModel, ConfigDict, Field

from silo_app import config, durable
from silo_app.encoder.checked_plan import checked_plan
from silo_app.errors import MessageInvalid, SiloscopeError
from silo_app.flare.containment import contain
from silo_app.flare.plans import SurveyPlan
from silo_app.flare.round_trip import ask_each
from silo_app.flare.site import failure, job_folder, kit_of, refusal, silos_of
from silo_app.privacy.questions import TABLES
from silo_app.privacy.survey import Released, release

RECORD_NAME = "survey.json"
DATASET = "patients"
_QUESTIONS = {table.name: table for table in TABLES}
_STATISTICS = {
    Words.STATS_COUNT: {},
    Words.STATS_FAILURE_COUNT: {},
    Words.STATS_HISTOGRAM: {table.name: {"bins": len(table.labels), "range": [0, len(table.labels)]} for table in TABLES},
}
_MAX_BINS_PERCENT = 100
"""More cells than patients are never told (NVFlare's HistogramBinsCleanser)."""


class SurveyEverywhere(StatisticsController):  # type: ignore[misc]
    """`jobs/survey` on the server."""

    def __init__(self, deadline_s: float = 600.0, min_silos: int = 1) -> None:
        plan = checked_plan(SurveyPlan, {"deadline_s": deadline_s, "min_silos": min_silos})
        super().__init__(
            statistic_configs=dict(_STATISTICS), writer_id="", result_wait_timeout=1, min_clients=max(1, plan.min_silos)
        )
        self._deadline_s = plan.deadline_s
        self._terms: dict[str, dict[str, Any]] = {}
        self._refused: dict[str, dict[str, str]] = {}
        self._missing: dict[str, str] = {}
        self._asked: list[str] = []

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Let no silo end the job for the others."""
        contain(fl_ctx)
        super().start_controller(fl_ctx)

    def broadcast_and_wait(self, task: Task, fl_ctx: FLContext, abort_signal: Signal, **_: Any) -> None:
        """Ask every silo that has not refused (not the anchor); wait for those that live, no longer than the deadline.

        NVFlare's own wait would stand still for a silo that is gone.
        """
        self._asked = self._asked or silos_of(fl_ctx)
        silos = [silo for silo in self._asked if silo not in self._refused and silo not in self._missing]
        require = _require_terms if task.name == Words.FED_STATS_PRE_RUN else _require_tables
        answers = ask_each(self, task.name, task.data, silos, self._deadline_s, fl_ctx, abort_signal, require)
        self._refused |= answers.refused
        self._missing |= answers.missing
        for silo, reply in sorted(answers.accepted.items()):
            client_task = SimpleNamespace(client=SimpleNamespace(name=silo), task=task, result=reply)
            task.result_received_cb(client_task=client_task, fl_ctx=fl_ctx)

    def results_pre_run_cb(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        """Keep on which terms a silo answers."""
        self._terms[client_task.client.name] = dict(from_shareable(client_task.result).data)
        super().results_pre_run_cb(client_task, fl_ctx)

    def post_fn(self, task_name: str, fl_ctx: FLContext) -> None:
        """Write the record: what each silo told, and which did not."""
        del task_name
        counts = self._by_silo()
        everything = self.global_statistics.get(Words.STATS_HISTOGRAM, {}).get(DATASET, {})
        record = {
            "schema_version": 1,
            "unit": "patients",
            "tables": [
                {"name": t.name, "title": t.title, "labels": t.labels, "ordered": t.ordered, "parts": t.parts}
                for t in TABLES
            ],
            "silos": {silo: {"terms": self._terms.get(silo, {}), "counts": counts[silo]} for silo in sorted(counts)},
            "all": {name: _cells(histogram) for name, histogram in everything.items()},
            "refused": {silo: why for silo, why in self._refused.items() if silo not in counts},
            "missing": sorted(set(self._asked) - set(counts) - set(self._refused)),
        }
        durable.write_text(job_folder(fl_ctx) / RECORD_NAME, json.dumps(record, indent=2))
        self.log_info(fl_ctx, f"surveyed: {sorted(counts)}, refused: {record['refused']}, missing: {record['missing']}")
        if len(counts) < self.min_clients:
            self.system_panic(
                f"only {len(counts)} silos answered the survey: {record['refused']} {record['missing']}", fl_ctx
            )

    def _by_silo(self) -> dict[str, dict[str, list[int]]]:
        histograms = self.client_statistics.get(Words.STATS_HISTOGRAM, {})
        return {
            silo: {name: _cells(histogram) for name, histogram in datasets[DATASET].items() if name in _QUESTIONS}
            for silo, datasets in histograms.items()
            if datasets.get(DATASET)
        }


class SiloSurvey(StatisticsExecutor):  # type: ignore[misc]
    """`jobs/survey` at a silo."""

    def __init__(self) -> None:
        super().__init__(generator_id="")
        self._released: Released | None = None

    def get_task_handler(self, fl_ctx: FLContext) -> StatisticsTaskHandler:
        """Return NVFlare's handler with our statistics in it; what they hold is made when the first task comes."""
        del fl_ctx
        handler = StatisticsTaskHandler("", self.precision)
        handler.stats_generator = _ReleasedStatistics(self)
        return handler

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer one task; whatever goes wrong is an answer too (an exception would end everybody's job)."""
        try:
            if self._released is None:
                self._released = release(config.load(kit_of(fl_ctx)), job=str(fl_ctx.get_job_id()))
            reply = super().execute(task_name, shareable, fl_ctx, abort_signal)
            return self._cleansed(reply, fl_ctx) if task_name == Words.FED_STATS_TASK else reply
        except SiloscopeError as error:
            return _not_fatal(refusal(error))
        except Exception:  # noqa: BLE001  (as in the other executors)
            return _not_fatal(failure())

    @property
    def released(self) -> Released:
        """What this silo tells; only while a task is executed."""
        if self._released is None:
            raise MessageInvalid("statistics are asked for before a task", remedy="This is a bug: report it.")
        return self._released

    def _cleansed(self, reply: Shareable, fl_ctx: FLContext) -> Shareable:
        """Apply NVFlare's own cleansers with the silo's numbers."""
        if reply.get_return_code() != ReturnCode.OK:
            return reply
        cleansers = [MinCountCleanser(self.released.min_count), HistogramBinsCleanser(_MAX_BINS_PERCENT)]
        dxo = from_shareable(reply)
        if dxo.data_kind != DataKind.STATISTICS:
            raise MessageInvalid("the reply holds no statistics", remedy="This is a bug: report it.")
        name = fl_ctx.get_identity_name()
        return StatisticsPrivacyFilter([]).filter_stats_statistics(dxo, name, cleansers).to_shareable()


class _ReleasedStatistics(Statistics):  # type: ignore[misc]
    """What was released, in NVFlare's words: a table is a feature, its cells are a histogram over [0, cells).

    No sum, mean, smallest or largest value is implemented, so that none can be asked for.
    """

    def __init__(self, silo: SiloSurvey) -> None:
        super().__init__()
        self._silo = silo

    def pre_run(self, statistics: list[str], num_of_bins: Any, bin_ranges: Any) -> dict[str, Any]:
        """Return the terms of the release; what the job wishes changes nothing."""
        del statistics, num_of_bins, bin_ranges
        released = self._silo.released
        return {"min_count": released.min_count, "epsilon": released.epsilon, "spent": released.spent, "day": released.day}

    def features(self) -> dict[str, list[Feature]]:
        """Return the tables."""
        return {DATASET: [Feature(table.name, DataType.INT) for table in TABLES]}

    def count(self, dataset_name: str, feature_name: str) -> int:
        """Return how many patients a table counts, as far as it is released."""
        return sum(self._cells(dataset_name, feature_name)) // _QUESTIONS[feature_name].parts

    def histogram(
        self, dataset_name: str, feature_name: str, num_of_bins: int, global_min_value: float, global_max_value: float
    ) -> Histogram:
        """Return a table; ranges other than its own are refused, since they could be chosen around one patient."""
        cells = self._cells(dataset_name, feature_name)
        if (num_of_bins, global_min_value, global_max_value) != (len(cells), 0, len(cells)):
            raise MessageInvalid("a job may not choose the ranges of a table", remedy="Submit jobs/survey as it is.")
        return Histogram(HistogramType.STANDARD, [Bin(place, place + 1, count) for place, count in enumerate(cells)])

    def _cells(self, dataset: str, feature: str) -> list[int]:
        if dataset != DATASET or feature not in _QUESTIONS:
            raise MessageInvalid("there is no such table", remedy="Submit jobs/survey as it is.")
        return list(self._silo.released.counts[feature])


class _Terms(BaseModel):
    """On which terms a silo answers (`Released`)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    min_count: int
    epsilon: float | None
    spent: float
    day: str = Field(max_length=10)


def _require_terms(silo: str, reply: Shareable) -> None:
    """Raise `MessageInvalid` for terms that cannot be written down."""
    try:
        _Terms.model_validate(from_shareable(reply).data)
    except ValueError:
        raise _unreadable("these are no terms of a survey", silo) from None


def _require_tables(silo: str, reply: Shareable) -> None:
    """Raise `MessageInvalid` for statistics over which the sum of all silos' would stumble: that fails the whole survey."""
    data = from_shareable(reply).data
    for statistic, of_datasets in fobs.loads(data[data[Words.STATISTICS_TASK_KEY]]).items():
        for dataset, of_tables in of_datasets.items():
            for name, told in of_tables.items():
                if dataset != DATASET or name not in _QUESTIONS or not _fits(statistic, told, len(_QUESTIONS[name].labels)):
                    raise _unreadable(f"{statistic} of {name} in {dataset} is none of a survey's", silo)


def _fits(statistic: str, told: Any, cells: int) -> bool:
    """Return whether this may be told of a table with so many cells; its ends are asked for before its histogram."""
    if statistic == Words.STATS_HISTOGRAM:
        bins = told.bins if isinstance(told, Histogram) else ()
        ends = [(one.low_value, one.high_value) for one in bins]
        return ends == [(place, place + 1) for place in range(cells)] and all(_is_count(one.sample_count) for one in bins)
    if statistic in {Words.STATS_MIN, Words.STATS_MAX}:
        return told is None or told == (cells if statistic == Words.STATS_MAX else 0)
    return statistic in _STATISTICS and (told is None or _is_count(told))


def _is_count(told: Any) -> bool:
    return isinstance(told, int) and told >= 0


def _unreadable(problem: str, silo: str) -> MessageInvalid:
    return MessageInvalid(
        problem[:200], where=silo, remedy="Does the silo have the version of siloscope that the server has?"
    )


def _cells(histogram: Histogram) -> list[int]:
    return [int(one.sample_count) for one in histogram.bins]


def _not_fatal(reply: Shareable) -> Shareable:
    """Return a refusal as NVFlare's controller takes it from one silo without ending the job."""
    reply.set_return_code(ReturnCode.EXECUTION_RESULT_ERROR)
    return reply
