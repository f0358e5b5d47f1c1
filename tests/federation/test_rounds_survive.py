"""Four silos train; one is killed in the second round, the server after it; the resumed job ends as if nothing had been.

"As if nothing had been" is bit for bit: sums of quantised updates are exact, rounding follows from the plan's seed, and
training is deterministic on one machine. The unharmed run is made of the same parts in this process, without NVFlare.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time

import psutil
import pytest
import torch

from provisioning import kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from provisioning.supervisor import Record
from silo_app import config
from silo_app.encoder import checkpoint, job_state
from silo_app.encoder.ledger import Ledger
from silo_app.encoder.participation import Participation
from silo_app.encoder.plan import TrainingPlan
from silo_app.flare.console import Console, stage_job, told_of_rounds
from silo_app.imaging.ingest import ingest
from silo_app.imaging.samples.phantom import make_phantoms
from tests.encoder.simulated_job import InProcessTrainer, SimulatedJob
from tests.federation import saboteur
from tests.federation.conftest import JOBS, Lab

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]

SETTINGS = {
    "rounds": 6,
    "encoder.backbone": "densenet-small",
    "encoder.input_size": 32,
    "training.steps": 2,
    "training.batch_size": 4,
    "training.precision": "float32",
    "straggler_wait_s": 20,
}
VICTIM = "hospital-d"
_PIDFD_GETFD = 438
"""Linux's system call that takes a descriptor of another process (pidfd_getfd(2), since 5.6)."""


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four silos with phantoms, up; one of them does harm when it is told to."""
    root = tmp_path_factory.mktemp("four")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    archives = make_phantoms(root / "archives", hospitals=4, studies=8, seed=5, progress=None, workers=2)
    silos = [archive.silo() for archive in archives]
    content = {"name": "four", "server": {"port": 0}, "silos": silos, "researchers": [{"name": "lead@siloscope.example"}]}
    kits.provision(Consortium.model_validate(content), root / "consortium")
    federation = Federation.load(root / "consortium")
    resources = federation.kit(VICTIM) / "local" / "resources.json"
    given = json.loads(resources.read_text())
    resources.write_text(json.dumps({**given, "components": [*given["components"], saboteur.COMPONENT]}))
    for silo in federation.silos:
        assert not ingest(config.load(federation.kit(silo)), workers=1).refused
    federation.up()
    yield Lab(federation)
    federation.down()


def entries(lab, job):
    file = lab.federation.kit(lab.federation.server) / job / "rounds.json"
    return json.loads(file.read_text())["rounds"] if file.is_file() else []


def kill_server(lab):
    """End the server and its job processes by signal 9, and wait until its supervisor has brought it back."""
    federation = lab.federation
    run = federation.root / ".run" / "server.json"
    supervisor = Record.read(run).supervisor.pid
    restarts = Record.read(run).restarts
    for pid in federation.pids("server"):
        if pid != supervisor:
            os.kill(pid, signal.SIGKILL)
    lab.until(lambda: Record.read(run).restarts > restarts)
    lab.until(lambda: {p.name for p in federation.status() if p.reached} >= set(federation.silos) - {VICTIM})


def versions(lab):
    return {silo: checkpoint.current_version(config.load(lab.federation.kit(silo)).models) for silo in lab.federation.silos}


def replay(lab, work, pattern):
    """Train unharmed, in this process, with the contributors that each round had; return the encoder version."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with stage_job(JOBS / "train", SETTINGS) as folder:
        content = json.loads((folder / "app" / "config" / "config_fed_server.json").read_text())
    plan = TrainingPlan.checked(content["workflows"][0]["args"]["plan"])
    parts = {}
    for silo in lab.federation.silos:
        home = config.load(lab.federation.kit(silo))
        folder = work / silo
        folder.mkdir()
        parts[silo] = Participation(home, job="unharmed", folder=folder, trainer=InProcessTrainer(home, folder))
    ledger = Ledger.begin(work / "rounds", "unharmed", plan.model_dump(mode="json", exclude={"resume"}))
    job = SimulatedJob(parts, plan, ledger, "unharmed").join().statistics()
    for contributors in pattern:
        for silo in parts:
            job.catch_up(silo)
        job.round(participants=contributors)
    return set(job.finish().values())


def test_one_silo_killed_the_server_killed_resumed_finished_equals_an_unharmed_run(four, tmp_path):
    job = four.submit("train", SETTINGS)
    four.until(lambda: len(entries(four, job)) >= 1, limit_s=120)
    four.federation.stop(VICTIM, grace=0)
    # In the second round, or later: one that had sent its update when it was killed is named as gone, and its update counts.
    four.until(lambda: VICTIM not in entries(four, job)[-1]["accepted"], limit_s=120)
    kill_server(four)
    begun = entries(four, job)
    assert len(begun) < SETTINGS["rounds"]
    four.federation.start(VICTIM)
    with Console.open(four.federation.admin_kit) as console:
        assert console.state(job).status == "FINISHED:ABNORMAL"
    assert all(job in job_state.kept(config.load(four.federation.kit(s)).root / "jobs") for s in four.federation.silos)

    status, envelope, text = four.silo(
        "job", "submit", JOBS / "train", "--resume", "--admin", four.federation.admin_kit, "--wait"
    )
    assert status == 0, text
    resumed = four.record(envelope["data"]["job"], "rounds.json")
    assert resumed["state"] == "finished"
    assert resumed["resumes"] == [job]
    everybody = sorted(four.federation.silos)
    rounds = {one["round"]: one for one in begun + resumed["rounds"]}
    assert sorted(rounds) == list(range(SETTINGS["rounds"]))
    assert rounds[0]["accepted"] == everybody
    missed = [one for one in begun if VICTIM not in one["accepted"]]
    assert missed[0]["accepted"] == [silo for silo in everybody if silo != VICTIM]
    assert missed[0]["quarantined"][VICTIM]["code"] == "gone"
    assert resumed["rounds"][-1]["accepted"] == everybody  # the silo that was killed has caught up

    ended = versions(four)
    assert len(set(ended.values())) == 1
    assert all(job_state.kept(config.load(four.federation.kit(s)).root / "jobs") == [] for s in four.federation.silos)
    assert not list((four.federation.kit("server") / "store" / "rounds").iterdir())
    assert replay(four, tmp_path, [rounds[number]["accepted"] for number in sorted(rounds)]) == set(ended.values())


def test_a_silo_that_comes_after_the_job_began_enters_it_when_it_is_resumed(four):
    """Three silos begin; the job is ended, and goes on with a fourth, which no round had so far."""
    federation = four.federation
    federation.stop(VICTIM)
    job = four.submit("train", {**SETTINGS, "rounds": 4})
    four.until(lambda: len(entries(four, job)) >= 2, limit_s=120)
    with Console.open(federation.admin_kit) as console:
        console.abort(job)
        four.until(lambda: console.state(job).over)
    federation.start(VICTIM)
    four.until(lambda: any(part.name == VICTIM and part.reached for part in federation.status()), limit_s=120)

    admin = ("--admin", federation.admin_kit, "--wait")
    status, envelope, text = four.silo("job", "submit", JOBS / "train", "--resume", "--admit", VICTIM, *admin)
    assert status == 0, text
    record = four.record(envelope["data"]["job"], "rounds.json")
    assert record["state"] == "finished"
    assert VICTIM not in record["restore"]["accepted"]
    assert record["enter"] == {"accepted": [VICTIM], "quarantined": {}}
    assert [one["accepted"] for one in record["statistics"]] == [sorted(federation.silos)]
    assert all(VICTIM in one["accepted"] for one in record["rounds"])
    assert len(record["rounds"]) < 4
    assert set(record["finish"]["encoder_versions"]) == set(federation.silos)
    assert len(set(versions(four).values())) == 1


def processes(lab, silo, word):
    """Return the processes of a silo with `word` in their command line."""
    found = []
    for pid in lab.federation.pids(silo):
        try:
            if word in " ".join(psutil.Process(pid).cmdline()):
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def test_stopped_killed_and_crashed_silos_cost_their_own_update_and_the_job_completes(four):
    """One silo's job process is stopped for a while and comes back, one's is killed, one's trainer crashes.

    Three of four must take part: without the killed one, rounds are void for as long as the crashed one starts again,
    which on a busy machine is longer than the short patience that makes the stopped one late. Nobody gives up meanwhile.
    """
    patience = {"straggler_wait_s": 4, "max_void_rounds": 50}
    job = four.submit("train", {**SETTINGS, "rounds": 10, "training.steps": 8, **patience})
    four.until(lambda: len(entries(four, job)) >= 1, limit_s=120)
    stopped = processes(four, "hospital-b", job)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    four.until(lambda: "hospital-b" in entries(four, job)[-1]["quarantined"])
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    four.until(lambda: "hospital-b" in entries(four, job)[-1]["accepted"])
    trainer = processes(four, "hospital-c", "silo_app.encoder.worker")
    os.kill(trainer[0], signal.SIGKILL)
    for pid in processes(four, VICTIM, job):
        os.kill(pid, signal.SIGKILL)
    record = four.record(job, "rounds.json")
    assert record["state"] == "finished"
    with Console.open(four.federation.admin_kit) as console:
        assert any("without hospital-d: gone" in line for line in told_of_rounds(console.log(job)))
    codes = {(silo, why["code"]) for one in record["rounds"] for silo, why in one["quarantined"].items()}
    assert codes & {("hospital-b", "late"), ("hospital-b", "behind")}
    assert (VICTIM, "gone") in codes
    assert {"hospital-a", "hospital-b", "hospital-c"} <= set(record["finish"]["encoder_versions"])
    assert len(set(record["finish"]["encoder_versions"].values())) == 1
    assert codes & {("hospital-c", "process-failed")} or "hospital-c" in record["rounds"][-1]["accepted"]


def test_a_silo_that_dies_while_its_update_is_on_the_way_ends_nobody_elses_job(four):
    """The server's job process is stopped until all updates wait for it; one silo is gone before it reads them."""
    seconds, rounds = 4, 3
    settings = {**SETTINGS, "rounds": rounds, "training.steps": 2000, "training.round_seconds": seconds}
    job = four.submit("train", settings)
    four.until(lambda: len(entries(four, job)) >= 1, limit_s=120)
    time.sleep(seconds / 2)  # all silos have their order and train
    server = processes(four, four.federation.server, job)
    for pid in server:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * seconds)
    for pid in processes(four, VICTIM, job):
        os.kill(pid, signal.SIGKILL)
    for pid in server:
        os.kill(pid, signal.SIGCONT)
    record = four.record(job, "rounds.json")
    assert record["state"] == "finished"
    assert len([one for one in record["rounds"] if one["accepted"]]) == rounds
    assert VICTIM not in record["rounds"][-1]["accepted"]


def test_a_silo_that_reports_failures_and_sends_poison_ends_nobody_elses_job(four):
    """It says that the job failed, that it is unsafe, and sends a result that cannot be decoded."""
    job = four.submit("train", {**SETTINGS, "straggler_wait_s": 4})
    four.until(lambda: len(entries(four, job)) >= 1, limit_s=120)
    tried = saboteur.sabotage(four.federation.kit(VICTIM), job, four)
    assert set(tried) == {"failed", "unsafe", "undecodable"}
    record = four.record(job, "rounds.json")
    assert record["state"] == "finished"
    assert len(set(record["finish"]["encoder_versions"].values())) == 1
    with Console.open(four.federation.admin_kit) as console:
        assert console.state(job).status == "FINISHED:COMPLETED"


def cut(lab, silo, word=""):
    """End every TCP connection of a silo's processes to the server, as a network does that goes away for a moment."""
    port, cuts = lab.federation.consortium.server.port, 0
    for pid in processes(lab, silo, word):
        with contextlib.suppress(psutil.Error, OSError):
            for connection in psutil.Process(pid).net_connections(kind="tcp"):
                if connection.raddr and connection.raddr.port == port and connection.fd >= 0:
                    process = os.pidfd_open(pid)
                    descriptor = ctypes.CDLL(None).syscall(_PIDFD_GETFD, process, connection.fd, 0)
                    os.close(process)
                    if descriptor >= 0:
                        with socket.socket(fileno=descriptor) as taken:
                            taken.shutdown(socket.SHUT_RDWR)
                        cuts += 1
    return cuts


def test_a_connection_that_is_cut_again_and_again_costs_no_update_and_no_second_training(four):
    job = four.submit("train", {**SETTINGS, "rounds": 3, "training.steps": 30})
    four.until(lambda: len(entries(four, job)) >= 1, limit_s=120)
    cuts = 0
    while len(entries(four, job)) < 2 and cuts < 6:
        cuts += cut(four, "hospital-b", job)
        time.sleep(0.3)
    assert cuts > 0
    record = four.record(job, "rounds.json")
    assert record["state"] == "finished"
    assert ["hospital-b" in one["accepted"] for one in record["rounds"]] == [True] * 3
    assert sorted(own_rounds(four, "hospital-b", job)) == [0, 1, 2]


@contextlib.contextmanager
def slowed(pids, share=0.1, period_s=0.1):
    """Let processes run for a share of the time only."""
    over = threading.Event()

    def hold():
        while not over.is_set():
            for number, seconds in ((signal.SIGSTOP, (1 - share) * period_s), (signal.SIGCONT, share * period_s)):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def own_rounds(lab, silo, job):
    """Return what a silo noted of its own training, by round."""
    lines = (lab.federation.kit(silo) / "silo" / "jobs" / job / "rounds.jsonl").read_text().splitlines()
    return {line["round"]: line["own"] for line in map(json.loads, lines) if "own" in line}


def test_a_silo_at_a_tenth_of_the_speed_gives_what_it_has_in_time_and_weighs_less(four):
    """Its trainer runs for a tenth of the time; the round's seconds are the same for all."""
    seconds, rounds = 3, 3
    settings = {**SETTINGS, "rounds": rounds, "training.steps": 2000, "training.round_seconds": seconds}
    job = four.submit("train", settings)
    four.until(lambda: len(entries(four, job)) >= 1, limit_s=120)
    with slowed(processes(four, VICTIM, "silo_app.encoder.worker")):
        record = four.record(job, "rounds.json")
    assert record["state"] == "finished"
    assert [one["quarantined"] for one in record["rounds"]] == [{}] * rounds
    trained = {silo: own_rounds(four, silo, job) for silo in four.federation.silos}
    for number in range(2, rounds):  # the second one may have begun before it was slow
        slow = trained[VICTIM][number]
        assert 0 < slow["steps"] < slow["steps_planned"]
        assert 3 * slow["steps"] < min(trained[silo][number]["steps"] for silo in trained if silo != VICTIM)
        assert slow["train_seconds"] < 2 * seconds  # beyond its time is the one step that it was in
