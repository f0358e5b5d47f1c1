"""How a job's process may end at a silo without ending everybody's job; the codes are those that NVFlare itself reads."""

import logging
import subprocess
import sys

import pytest
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.fuel.common.exit_codes import ProcessExitCode
from nvflare.private.fed.utils.fed_utils import get_return_code
from nvflare.utils.process_utils import ProcessAdapter

from silo_app.flare.launcher import SurvivableHandle

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def ended(folder, program, noted=None):
    """Return the code that NVFlare reads of a job process that ran `program`."""
    run = folder / "job"
    run.mkdir()
    note = run / FLMetaKey.PROCESS_RC_FILE
    if noted is not None:
        note.write_text(str(noted))
    process = subprocess.Popen([sys.executable, "-c", program])
    handle = SurvivableHandle(ProcessAdapter(process=process), note)
    handle.wait()
    return get_return_code(handle, "job", str(folder), logging.getLogger())


@pytest.mark.parametrize(
    "code", [1, 9, ProcessExitCode.EXCEPTION, ProcessExitCode.CONFIG_ERROR, ProcessExitCode.UNSAFE_COMPONENT]
)
@pytest.mark.parametrize("with_note", [False, True])
def test_an_end_with_an_error_is_unknown_to_the_server(tmp_path, code, with_note):
    code = int(code)
    assert ended(tmp_path, f"raise SystemExit({code})", code if with_note else None) == JobReturnCode.UNKNOWN


def test_an_end_by_a_signal_is_unknown_to_the_server(tmp_path):
    assert ended(tmp_path, KILLED) == JobReturnCode.UNKNOWN


def test_a_good_end_is_told_as_one(tmp_path):
    assert ended(tmp_path, "pass") == JobReturnCode.SUCCESS


def test_a_process_that_runs_has_no_end_yet(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    handle = SurvivableHandle(ProcessAdapter(process=process), tmp_path / "note")
    assert handle.poll() == JobReturnCode.UNKNOWN
    process.kill()
    process.wait()
