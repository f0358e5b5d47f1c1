import json
import subprocess

import pytest

from silo_app.command import command_line, data_of
from silo_app.errors import ProcessFailed


def test_the_data_of_a_command_are_what_its_envelope_holds():
    output = json.dumps({"schema_version": 1, "status": "ok", "data": {"cases": 3}})
    assert data_of(output, status=0, command="silo index build") == {"cases": 3}


def test_a_commands_own_error_is_passed_on():
    error = {"code": "not-ready", "problem": "no encoder", "where": "models", "remedy": "Train one."}
    output = json.dumps({"schema_version": 1, "status": "error", "error": error})
    with pytest.raises(ProcessFailed) as raised:
        data_of(output, status=3, command="silo index build")
    assert raised.value.problem == "`silo index build`: no encoder (not-ready)"
    assert (raised.value.where, raised.value.remedy) == ("models", "Train one.")


@pytest.mark.parametrize(
    ("output", "noise", "said"),
    [
        ("", "", "`silo x` ended with status -9: no result"),
        ('{"status": "o', "Killed\n", "`silo x` ended with status -9: Killed"),
        ("", "a" * 5000, "`silo x` ended with status -9: " + "a" * 2000),
    ],
    ids=["nothing", "half an envelope", "a flood"],
)
def test_a_command_without_an_envelope_says_how_it_ended(output, noise, said):
    with pytest.raises(ProcessFailed) as raised:
        data_of(output, status=-9, command="silo x", noise=noise)
    assert raised.value.problem == said


def test_a_real_command_refuses_in_an_envelope(tmp_path):
    ran = subprocess.run(
        command_line(["index", "status", "--silo", str(tmp_path)]), capture_output=True, text=True, check=False
    )
    with pytest.raises(ProcessFailed, match="silo index status"):
        data_of(ran.stdout, status=ran.returncode, command="silo index status", noise=ran.stderr)
