"""From images to a search across hospitals, on real processes; then each part is killed in turn."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pydicom
import pytest

from provisioning import audit_server
from silo_app import config
from silo_app.catalogue import Catalogue
from silo_app.encoder import checkpoint
from silo_app.errors import JobFailed
from silo_app.flare.console import Console, records_told
from tests.federation.conftest import JOBS, SMALL

pytestmark = [pytest.mark.federation, pytest.mark.timeout(900)]


def test_training_leaves_one_encoder_in_every_silo(trained):
    lab, job, record = trained
    versions = {checkpoint.current_version(config.load(lab.federation.kit(s)).models) for s in lab.federation.silos}
    assert len(versions) == 1
    kept = checkpoint.load(config.load(lab.federation.kit("hospital-a")).models, versions.pop())
    assert kept.card["job"] == job
    assert kept.card["encryption"] == "bfv"
    assert set(kept.card["silos"]) == set(lab.federation.silos)
    assert [one["accepted"] for one in record["rounds"]] == [sorted(lab.federation.silos)] * 2


def test_every_silo_keeps_a_copy_for_itself_that_no_other_place_has(trained):
    lab, _, _ = trained
    copies = {}
    for silo in lab.federation.silos:
        models = config.load(lab.federation.kit(silo)).models
        kept = checkpoint.load(models, checkpoint.current_version(models))
        copies[silo] = kept.personal
        files = list(lab.federation.kit(silo).rglob("personal.safetensors"))
        assert files
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)
        assert len(kept.personal) == len(kept.vector)
    assert len({copy.tobytes() for copy in copies.values()}) == len(copies)
    assert not list(lab.federation.kit(lab.federation.server).rglob("personal*"))


def test_the_later_round_is_smaller_than_the_first(trained):
    """Even of this small network, whose few blocks are not full; benchmarks/aggregation.py measures real ones."""
    _, _, record = trained
    first, later = (one["upload_bytes"]["hospital-a"] for one in record["rounds"])
    assert later < first


def test_the_servers_record_has_no_count_and_no_metric(trained):
    lab, job, record = trained
    assert record["state"] == "finished"
    assert not {"samples", "steps_taken", "loss", "auc", "images", "reports"} & set(str(record).replace("'", " ").split())
    lines = (lab.federation.kit("hospital-a") / "silo" / "jobs" / job / "rounds.jsonl").read_text().splitlines()
    sums = [json.loads(line)["sums"] for line in lines if "sums" in line]
    assert [one["samples"] for one in sums] == [sums[0]["samples"]] * 3
    assert sums[-1]["steps"] > 0


def test_a_training_can_be_followed_from_the_servers_log(trained):
    lab, job, record = trained
    with Console.open(lab.federation.admin_kit) as console:
        told = records_told(console.log(job))
    assert [one for one in told if one["round"] is not None] == record["rounds"]


def test_what_all_silos_agree_to_share_reaches_tensorboard_and_mlflow(trained):
    lab, job, _ = trained
    with Console.open(lab.federation.admin_kit) as console:
        folder = console.download(job)
    assert {file.parent.name for file in folder.rglob("events.out.tfevents.*")} == set(lab.federation.silos)
    (database,) = folder.rglob("mlflow.db")
    told = "SELECT runs.name, metrics.key, metrics.step FROM metrics JOIN runs USING (run_uuid)"
    with contextlib.closing(sqlite3.connect(database)) as mlflow:
        rows = [(run.partition(f"-{job[:6]}")[0], key, step) for run, key, step in mlflow.execute(told)]
    assert {silo for silo, _, _ in rows} == set(lab.federation.silos)
    assert {(key, step) for _, key, step in rows} >= {("pooled/loss", 1), ("pooled/loss", 2), ("pooled/held_out_loss", 1)}


def test_held_out_scores_stay_in_the_silo(trained):
    lab, job, _ = trained
    assert (lab.federation.kit("hospital-a") / "silo" / "jobs" / job / "held-out.jsonl").is_file()
    assert not list(lab.federation.kit(lab.federation.server).rglob("held-out*"))


def test_no_weights_stay_where_silo_and_trainer_exchanged_them(trained):
    lab, job, _ = trained
    for silo in lab.federation.silos:
        assert not list((lab.federation.kit(silo) / job).rglob("*.safetensors"))


def test_every_hospital_answers_a_query(searching):
    status, envelope, _ = searching.search()
    result = envelope["data"]
    assert status == 0
    assert len(result["hits"]) == 12
    assert [hit["score"] for hit in result["hits"]] == sorted((hit["score"] for hit in result["hits"]), reverse=True)
    assert {hit["silo"] for hit in result["hits"]} <= set(searching.federation.silos)
    assert result["hits"][0]["score"] == pytest.approx(1.0, abs=1e-3)  # the query's own image is in the gallery


def test_a_hit_says_no_more_than_the_policy_allows(searching):
    _, envelope, _ = searching.search()
    allowed = {"position", "sex", "age_band", "study_year", "findings"}
    assert all(set(hit["card"]) <= allowed for hit in envelope["data"]["hits"])
    assert all(hit["card"].get("study_year") in {None, 0} for hit in envelope["data"]["hits"])  # not in the default policy


def test_every_hospital_narrows_a_search_before_it_ranks(searching):
    asked = ("search", searching.query("hospital-a"), "--silo", searching.federation.kit("hospital-a"), "-k", 12)
    status, envelope, text = searching.silo(*asked, "--sex", "F", "--age", "20-")
    assert status == 0, text
    assert envelope["data"]["hits"]
    assert {hit["card"]["sex"] for hit in envelope["data"]["hits"]} == {"F"}
    # few such cases are enough for a refusal, and never for another case
    assert {one["state"] for one in envelope["data"]["silos"]} <= {"answered", "denied"}
    status, envelope, text = searching.silo(*asked, "--year", "2015-")
    assert status == 1
    assert {one["code"] for one in envelope["data"]["silos"]} == {"filter-not-allowed"}


def test_the_python_of_the_docs_runs(searching, capsys):
    page = (Path(__file__).parents[2] / "docs" / "how-to-search.md").read_text(encoding="utf-8")
    code = page.partition("```python")[2].partition("```")[0]
    code = code.replace("kits/st-anna", str(searching.federation.kit("hospital-a")))
    exec(code.replace("image.dcm", str(searching.query("hospital-a"))), {})  # noqa: S102  (our own page)
    lines = capsys.readouterr().out.splitlines()
    assert any("answered" in line for line in lines), lines
    for silo in searching.federation.silos:
        assert any(line.startswith(silo) for line in lines), lines


def test_an_image_of_the_silo_is_asked_for_by_its_uid_refined_and_explained(searching, tmp_path):
    """What the server keeps of it is looked at below: no UID."""
    file, page = searching.query("hospital-a"), tmp_path / "page.html"
    asked = ("search", "--uid", pydicom.dcmread(file).SOPInstanceUID, "--silo", searching.federation.kit("hospital-a"))
    status, envelope, text = searching.silo(*asked, "-k", 12)
    assert status == 0, text
    itself = searching.search()[1]["data"]["hits"][0]["case"]
    assert len(envelope["data"]["hits"]) == 12
    assert itself not in {hit["case"] for hit in envelope["data"]["hits"]}
    options = ("-k", 12, "--region", "0.1,0.1,0.6,0.6", "--more", file, "--html", page, "--why")
    status, envelope, text = searching.silo(*asked, *options)
    assert status == 0, text
    own = sum(hit["silo"] == "hospital-a" for hit in envelope["data"]["hits"])
    assert page.read_text(encoding="utf-8").count('src="data:image/') == 4 * own


def test_the_federated_precision_is_measured_through_the_federation(searching, tmp_path):
    kits = [part for silo in searching.federation.silos for part in ("--silo", searching.federation.kit(silo))]
    status, envelope, text = searching.silo(
        "evaluate", *kits, "--federated", "--queries", "5", "--json", tmp_path / "e.json"
    )
    assert status == 0, text
    asked = envelope["data"]["federated_search"]
    assert asked["queries"] > 5
    assert 0 <= asked["precision"] <= 1
    assert all(set(states) == {"answered"} for states in asked["states"].values())


def test_a_private_query_is_answered_by_those_who_allow_it(searching):
    kit = searching.federation.kit("hospital-a")
    status, envelope, text = searching.silo("search", searching.query("hospital-a"), "--silo", kit, "-k", 12, "--private")
    assert status == 0, text
    states = {one["silo"]: (one["state"], one["code"]) for one in envelope["data"]["silos"]}
    assert states == {
        "hospital-a": ("answered", ""),
        "hospital-b": ("answered", ""),
        "hospital-c": ("denied", "private-not-answered"),
    }
    assert envelope["data"]["hits"][0]["score"] > 0.98  # the image itself is in hospital-a's gallery


def test_who_answers_no_private_query_finds_the_own_cases_with_one(searching):
    kit = searching.federation.kit("hospital-c")
    status, envelope, text = searching.silo("search", searching.query("hospital-c"), "--silo", kit, "--private")
    assert status == 0, text
    states = {one["silo"]: one["state"] for one in envelope["data"]["silos"]}
    assert states == dict.fromkeys(("hospital-a", "hospital-b", "hospital-c"), "answered")
    first = envelope["data"]["hits"][0]
    assert (first["silo"], first["score"] > 0.98) == ("hospital-c", True)


def test_the_server_keeps_nothing_that_it_must_not_have(searching):
    found = audit_server.look(searching.federation)
    assert found["needles"] > 100
    assert found["leaks"] == []


@pytest.mark.parametrize("kind", ["plaintext weights", "an embedding", "an identifier", "a silo's key"])
def test_the_look_at_the_server_would_find_a_leak(searching, kind):
    needle = next(needle for name, needle in audit_server.needles(searching.federation) if name == kind)
    planted = searching.federation.kit(searching.federation.server) / "planted.bin"
    planted.write_bytes(b"before" + needle + b"after")
    try:
        assert f"planted.bin: {kind}" in audit_server.look(searching.federation)["leaks"]
    finally:
        planted.unlink()


def test_logs_of_the_silos_name_no_patient(searching):
    for silo in searching.federation.silos:
        wanted = [needle for kind, needle in audit_server.needles(searching.federation) if kind == "an identifier"]
        for log in searching.federation.logs(silo):
            content = log.read_bytes()
            assert not [needle for needle in wanted if needle in content]


def test_the_console_of_nvflare_submits_a_job(searching):
    script = "lead@siloscope.example\nsubmit_job jobs/index\nbye\n"
    done = subprocess.run(
        ["bash", "startup/fl_admin.sh"],
        cwd=searching.federation.admin_kit,
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"SILO_PYTHON": sys.executable, "PYTHONPATH": str(JOBS.parent)},
    )
    text = done.stdout + done.stderr
    assert "Submitted job" in text or "submitted job" in text.lower(), text
    job = next(word for word in text.replace(":", " ").split() if word.count("-") == 4 and len(word) == 36)
    assert searching.wait(job).status == "FINISHED:COMPLETED"


def test_what_lies_in_the_folder_of_the_command_is_no_setting_of_the_connection(searching, tmp_path):
    """NVFlare reads `comm_config.json` from anywhere below the working folder, unless it is told where settings are."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "comm_config.json").write_text("{ nothing that could be read")
    admin = searching.federation.admin_kit
    status, envelope, text = searching.silo("job", "list", "--admin", admin, folder=tmp_path)
    assert status == 0, text
    assert envelope["data"]


def test_a_job_that_brings_code_is_refused(searching, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(JOBS / "train", folder)
    (folder / "app" / "custom").mkdir()
    (folder / "app" / "custom" / "evil.py").write_text("print('evil')\n")
    with pytest.raises(JobFailed):
        searching.wait(searching.submit("train", folder=folder))


def test_a_job_with_a_class_that_no_site_allows_is_refused(searching, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(JOBS / "train", folder)
    file = folder / "app" / "config" / "config_fed_client.json"
    file.write_text(file.read_text().replace("silo_app.flare.silo_training.SiloTraining", "subprocess.Popen"))
    with pytest.raises(JobFailed, match=r"only 0 silos joined the job, 2 are needed \(hospital-a: gone; hospital-b: gone"):
        searching.wait(searching.submit("train", folder=folder))


def test_a_silo_whose_job_process_dies_is_named_and_the_indexing_of_the_others_ends(searching):
    job = searching.submit("index")
    os.kill(searching.until(lambda: _process(searching.federation, "hospital-c", "worker_process", job)), signal.SIGKILL)
    record = searching.record(job, "index.json")
    assert set(record["silos"]) == {"hospital-a", "hospital-b"}
    assert record["missing"] == {"hospital-c": "gone"}


def test_a_wrong_setting_that_was_sent_past_our_command_ends_the_job_and_is_named(searching, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(JOBS / "train", folder)
    file = folder / "app" / "config" / "config_fed_server.json"
    file.write_text(file.read_text().replace('"rounds": 32', '"rounds": 0, "no_such_setting": 1'))
    with Console.open(searching.federation.admin_kit) as console:
        job = console.submit(folder)
    with pytest.raises(JobFailed, match=r"FINISHED.*plan: rounds: Input should"):
        searching.wait(job)
    texts = [path.read_text(errors="replace") for path in searching.federation.logs(searching.federation.server)]
    assert any("no_such_setting" in text for text in texts)


def test_a_killed_index_process_costs_its_own_answers_only(searching):
    federation = searching.federation
    federation.stop("hospital-b.index", grace=0)
    told = {"hospital-a": "answered", "hospital-b": "unreachable", "hospital-c": "answered"}
    searching.until(lambda: searching.states() == told, limit_s=20)
    federation.start("hospital-b.index")
    searching.until(lambda: searching.states().get("hospital-b") == "answered")


def test_a_site_killed_between_queries_is_marked_and_comes_back(searching):
    federation = searching.federation
    federation.stop("hospital-c", grace=0)
    searching.until(lambda: searching.states().get("hospital-c") == "unreachable", limit_s=20)
    states = searching.states()
    assert states["hospital-a"] == states["hospital-b"] == "answered"
    federation.start("hospital-c")
    searching.until(lambda: searching.states().get("hospital-c") == "answered", limit_s=120)


def test_a_site_killed_during_queries_never_costs_the_query(searching):
    federation = searching.federation
    statuses = []

    def ask():
        statuses.extend(searching.search()[0] for _ in range(4))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(4)
    federation.stop("hospital-c", grace=0)
    asking.join()
    assert statuses == [0] * 4
    federation.start("hospital-c")
    searching.until(lambda: searching.states().get("hospital-c") == "answered", limit_s=120)


def test_a_crashed_trainer_costs_one_round_and_not_the_job(searching):
    federation = searching.federation
    job = searching.submit("train", {**SMALL, "rounds": 8, "training.epochs": 4, "straggler_wait_s": 120})
    file = federation.kit(federation.server) / job / "rounds.json"
    searching.until(lambda: file.is_file() and '"round": 0' in file.read_text(), limit_s=120)
    os.kill(_trainer(federation, "hospital-b"), signal.SIGKILL)
    record = searching.record(job, "rounds.json")
    assert "hospital-b" in record["rounds"][-1]["accepted"]
    assert len(set(record["finish"]["encoder_versions"].values())) == 1


def test_a_site_killed_during_a_round_is_named_and_the_others_finish(searching):
    federation = searching.federation
    job = searching.submit("train", {**SMALL, "rounds": 8, "training.epochs": 4, "straggler_wait_s": 5})
    file = federation.kit(federation.server) / job / "rounds.json"
    searching.until(lambda: file.is_file() and '"round": 0' in file.read_text())
    federation.stop("hospital-c", grace=0)
    record = searching.record(job, "rounds.json")
    assert record["rounds"][-1]["accepted"] == ["hospital-a", "hospital-b"]
    assert record["rounds"][-1]["quarantined"]["hospital-c"]["code"] == "gone"
    assert set(record["finish"]["encoder_versions"]) == {"hospital-a", "hospital-b"}
    federation.start("hospital-c")


def test_silos_with_another_encoder_say_so_until_they_are_indexed_again(searching):
    """The job before gave two silos a new encoder; until all are indexed, they are searched with the one before.

    One silo still uses that afterwards too: it missed the training.
    """
    searching.until(lambda: set(searching.states().values()) == {"answered"}, limit_s=120)
    searching.run("index", "index.json")
    assert searching.states().get("hospital-a") == "answered"  # at once: the index process has the new generation
    searching.until(lambda: searching.states().get("hospital-c") == "other-encoder", limit_s=120)


def test_nothing_of_the_consortium_is_left_running(searching):
    federation = searching.federation
    pids = [pid for name in (federation.server, *federation.silos) for pid in federation.pids(name)]
    assert pids
    federation.down()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_catalogues_survive_all_of_this(lab):
    for silo in lab.federation.silos:
        with Catalogue.open(config.load(lab.federation.kit(silo)).catalogue) as catalogue:
            assert catalogue.counts().views > 20


def _current(lab, silo):
    models = config.load(lab.federation.kit(silo)).models
    return models, checkpoint.current_version(models)


def _trainer(federation, silo):
    return _process(federation, silo, "silo_app.encoder.worker")


def _process(federation, silo, *words):
    """Return the silo's process whose command has all these words; None if there is none."""
    for pid in federation.pids(silo):
        try:
            command = " ".join(psutil.Process(pid).cmdline())
            if all(word in command for word in words):
                return pid
        except psutil.NoSuchProcess:
            continue
    return None
