import json
import re
from pathlib import Path

import pytest

from provisioning import site_policy

DEFAULT_RIGHTS = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": "any",
        "org_admin": {"submit_job": "none", "view": "any", "shell_commands": "o:site", "byoc": "none"},
        "lead": {"submit_job": "any", "view": "any", "shell_commands": "o:site", "byoc": "any"},
        "member": {"view": "any"},
    },
}
DEFAULT_SITE = {
    "format_version": 2,
    "class_list_enforcement_mode": "warn",
    "class_allow_list": ["*"],
    "allow_log_streaming": True,
    "client": {"retry_timeout": 30},
    "components": [{"id": "resource_manager"}, {"id": "site_log_streamer"}],
}
DEFAULT_SERVER = {
    "class_allow_list": ["nvflare."],
    "servers": [{"max_num_clients": 100}],
    "snapshot_persistor": {"path": "p", "args": {"uri_root": "/", "storage": {"args": {"root_dir": "/tmp/nvflare/s"}}}},
    "components": [
        {"id": "job_scheduler", "args": {"max_jobs": 4}},
        {"id": "job_manager", "args": {"uri_root": "/tmp/nvflare/jobs-storage", "job_store_id": "job_store"}},
        {"id": "job_store"},
        {"id": "log_receiver"},
    ],
}


def test_nobody_may_bring_code_or_read_files_by_shell():
    permissions = site_policy.authorization(DEFAULT_RIGHTS)["permissions"]
    assert set(permissions) == set(DEFAULT_RIGHTS["permissions"])
    for rights in permissions.values():
        assert rights["byoc"] == rights["shell_commands"] == rights["server-predeployed-flwr"] == "none"


def test_other_rights_stay():
    permissions = site_policy.authorization(DEFAULT_RIGHTS)["permissions"]
    assert permissions["lead"]["submit_job"] == "any"
    assert permissions["org_admin"]["submit_job"] == "none"
    assert permissions["project_admin"]["operate"] == "any"


@pytest.mark.parametrize("gateway", [True, False])
def test_a_site_builds_only_our_classes_and_streams_no_log(gateway):
    resources = site_policy.site_resources(DEFAULT_SITE, gateway=gateway)
    assert resources["class_allow_list"] == ["silo_app.flare."]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["allow_log_streaming"] is False
    assert resources["client"] == DEFAULT_SITE["client"]
    expected = ["resource_manager", "silo_gateway"] if gateway else ["resource_manager"]
    assert [component["id"] for component in resources["components"]] == expected


def test_a_servers_stores_lie_in_its_own_folder():
    resources = site_policy.server_resources(DEFAULT_SERVER, home=Path("/srv/coordinator"))
    assert "/tmp" not in json.dumps(resources)
    components = {component["id"]: component for component in resources["components"]}
    assert components["job_manager"]["args"] == {"uri_root": "/srv/coordinator/store/jobs", "job_store_id": "job_store"}
    assert components["job_scheduler"]["args"]["max_jobs"] >= 4
    assert "log_receiver" not in components
    assert components["job_reports"] == site_policy.JOB_REPORTS
    assert resources["servers"] == DEFAULT_SERVER["servers"]


def test_the_defaults_given_are_not_changed():
    before = json.dumps([DEFAULT_SITE, DEFAULT_SERVER, DEFAULT_RIGHTS])
    site_policy.site_resources(DEFAULT_SITE, gateway=True)
    site_policy.server_resources(DEFAULT_SERVER, home=Path("/srv"))
    site_policy.authorization(DEFAULT_RIGHTS)
    assert json.dumps([DEFAULT_SITE, DEFAULT_SERVER, DEFAULT_RIGHTS]) == before


def test_every_class_that_the_jobs_name_is_on_the_list():
    jobs = Path(__file__).parents[2] / "jobs"
    named = [path for file in jobs.rglob("config_fed_*.json") for path in re.findall(r'"path": "([^"]+)"', file.read_text())]
    assert named
    assert [path for path in named if not path.startswith(site_policy.CLASS_ALLOW_LIST)] == []
