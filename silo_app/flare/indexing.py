"""`jobs/index`: ask every silo to index its cases with its current encoder; numbers come back, never embeddings."""

import contextlib
import json
import subprocess
from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from silo_app import config, durable
from silo_app.command import command_line, data_of
from silo_app.encoder.checked_plan import checked_plan
from silo_app.errors import RoundRefused, SiloscopeError
from silo_app.flare import words
from silo_app.flare.containment import contain
from silo_app.flare.plans import IndexPlan
from silo_app.flare.round_trip import ask_each
from silo_app.flare.site import failure, job_folder, kit_of, refusal, silos_of, unknown_task

RECORD_NAME = "index.json"


class IndexEverywhere(Controller):  # type: ignore[misc]
    """`jobs/index` on the server."""

    def __init__(self, deadline_s: float = 7200.0, min_silos: int = 1) -> None:
        super().__init__()
        plan = checked_plan(IndexPlan, {"deadline_s": deadline_s, "min_silos": min_silos})
        self._deadline_s = plan.deadline_s
        self._min_silos = plan.min_silos

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Let no silo end the job for the others."""
        contain(fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to release."""

    def process_result_of_unknown_task(self, *_: Any, **__: Any) -> None:
        """Drop what comes after the deadline."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send one task to every silo, and write down what each has."""
        everyone = silos_of(fl_ctx)
        reports: dict[str, dict[str, Any]] = {}

        def take(silo: str, reply: Shareable) -> None:
            reports[silo] = json.loads(json.dumps(dict(reply[words.REPORT])))

        answers = ask_each(self, words.TASK_INDEX, Shareable(), everyone, self._deadline_s, fl_ctx, abort_signal, take)
        record = {"silos": reports, "refused": answers.refused, "missing": answers.missing}
        durable.write_text(job_folder(fl_ctx) / RECORD_NAME, json.dumps(record, indent=2))
        self.log_info(fl_ctx, f"indexed: {json.dumps(reports)}")
        if len(reports) < self._min_silos and not abort_signal.triggered:
            error = RoundRefused(
                f"only {len(reports)} silos built an index: {answers.refused} {answers.missing}",
                remedy="Look at the named silos; each needs images (`silo ingest`) and an encoder (`jobs/train`).",
            )
            self.system_panic(str(error), fl_ctx)


class SiloIndexing(Executor):  # type: ignore[misc]
    """`jobs/index` at a silo: embedding runs in a child process, as training does."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Build and publish a generation of this silo's index."""
        del shareable
        if task_name != words.TASK_INDEX:
            return unknown_task(task_name)
        try:
            home = config.load(kit_of(fl_ctx))
            reply = make_reply(ReturnCode.OK)
            reply[words.REPORT] = _build(home.kit, abort_signal)
        except SiloscopeError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001  (an exception here would end this process, and with it everybody's job)
            return failure()
        return reply


def _build(kit: Any, abort: Signal) -> dict[str, Any]:
    arguments = ["index", "build", "--silo", str(kit)]
    with subprocess.Popen(command_line(arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        while child.poll() is None:
            if abort.triggered:
                child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=0.5)
        output = child.stdout.read() if child.stdout else ""
    return dict(data_of(output, status=child.returncode, command="silo index build"))
